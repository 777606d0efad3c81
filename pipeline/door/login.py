"""How a connection begins: greeting, TLS, name and password.

Written anew over `mysql-mimic`'s packets, because its own login goes on serving a client that it has just refused.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass

from mysql_mimic.charset import CharacterSet
from mysql_mimic.constants import DEFAULT_SERVER_CAPABILITIES
from mysql_mimic.packets import (
    make_auth_more_data,
    make_auth_switch_request,
    make_handshake_v10,
    make_ok,
)
from mysql_mimic.types import Capabilities, ServerStatus

from pipeline.door.framing import Malformed, Wire
from pipeline.door.mysql_catalog import VERSION
from pipeline.door.mysql_errors import ACCESS_DENIED, BLOCKED, INSECURE, ClientError
from pipeline.door.packets import Greeting, change_of_user, greeting, wants_tls
from pipeline.serve.users import PROBE, Authenticator, nonce

NATIVE = "mysql_native_password"
SHA2 = "caching_sha2_password"
"""All that the `mysql` command of MySQL 9 knows.  Only its fast path: the hash that it needs is in the users file."""
FAST_SUCCESS = b"\x03"
STATUS = ServerStatus.SERVER_STATUS_AUTOCOMMIT | ServerStatus.SERVER_STATUS_NO_BACKSLASH_ESCAPES
"""With this drivers escape a quote by another one, and leave backslashes as they are."""
CAPABILITIES = (
    DEFAULT_SERVER_CAPABILITIES & ~Capabilities.CLIENT_QUERY_ATTRIBUTES
) | Capabilities.CLIENT_TRANSACTIONS


@dataclass(frozen=True, slots=True)
class Login:
    """Who has come in, and how its client speaks."""

    user: str
    database: str
    charset: CharacterSet
    capabilities: Capabilities


@dataclass(frozen=True, slots=True)
class LoginPolicy:
    """`tls`: what TLS is offered with; `insist`: nobody comes in without it."""

    authenticator: Authenticator
    tls: ssl.SSLContext | None = None
    insist: bool = False

    @property
    def capabilities(self) -> Capabilities:
        """What the server can do."""
        return CAPABILITIES | (Capabilities.CLIENT_SSL if self.tls else Capabilities(0))


async def login(
    wire: Wire, policy: LoginPolicy, connection_id: int, room_for: Callable[[str], None]
) -> Login:
    """Raises ClientError with what is to be said to the client, Malformed, HungUp.

    `room_for`: raises ClientError where a user has no room, once the password is right.
    """
    challenge = nonce()
    await wire.send(
        make_handshake_v10(
            capabilities=policy.capabilities,
            server_charset=CharacterSet.utf8mb4,
            server_version=VERSION,
            connection_id=connection_id,
            auth_data=challenge + b"\0",
            status_flags=STATUS,
            auth_plugin_name=NATIVE,
        )
    )
    hello = await _greeted(wire, policy)
    _refuse_early(wire, policy, hello.user)
    sha2 = hello.plugin == SHA2 and policy.authenticator.takes_sha2(hello.user)
    answer = hello.answer
    if hello.plugin not in {"", NATIVE}:
        challenge, answer = await _switched(wire, SHA2 if sha2 else NATIVE)
    _admit(wire, policy, hello.user, answer, challenge, sha2)
    room_for(hello.user)
    if sha2 and len(answer) > 1:  # a client without a password sends a zero, and waits for nothing
        wire.put(make_auth_more_data(FAST_SUCCESS))
    await wire.send(ok(hello.capabilities))
    return Login(hello.user, hello.database, hello.charset, hello.capabilities)


async def _greeted(wire: Wire, policy: LoginPolicy) -> Greeting:
    """The client's greeting, after TLS has begun where it asks for it."""
    data = await wire.read()
    if wants_tls(data):
        if policy.tls is None:
            raise Malformed("a request for TLS, which is not offered")
        await wire.start_tls(policy.tls)
        data = await wire.read()
    try:
        return greeting(data, policy.capabilities)
    except (ValueError, LookupError) as error:
        raise Malformed(f"a greeting that cannot be read ({error})") from error


async def change_user(
    wire: Wire, policy: LoginPolicy, current: Login, data: bytes, room_for: Callable[[str], None]
) -> Login:
    """COM_CHANGE_USER: asks for the password of the other user.  Raises as `login`."""
    try:
        asked = change_of_user(data, current.capabilities, current.charset)
    except (ValueError, LookupError) as error:
        raise Malformed(f"a change of user that cannot be read ({error})") from error
    _refuse_early(wire, policy, asked.user)
    challenge, answer = await _switched(wire, NATIVE)
    _admit(wire, policy, asked.user, answer, challenge, sha2=False)
    room_for(asked.user)
    await wire.send(ok(current.capabilities))
    return Login(asked.user, asked.database, asked.charset, asked.capabilities)


def ok(capabilities: Capabilities) -> bytes:
    """The packet that says that something is done."""
    return bytes(make_ok(capabilities=capabilities, status_flags=STATUS))


async def _switched(wire: Wire, plugin: str) -> tuple[bytes, bytes]:
    challenge = nonce()
    await wire.send(make_auth_switch_request(CharacterSet.utf8mb4, plugin, challenge + b"\0"))
    return challenge, await wire.read()


def _refuse_early(wire: Wire, policy: LoginPolicy, name: str) -> None:
    if policy.authenticator.blocked(wire.peer, name):
        raise ClientError(
            BLOCKED, f"too many logins of {name!r} from your address have failed; wait a minute"
        )
    if policy.insist and not wire.encrypted and name != PROBE:  # which sends no secret
        raise ClientError(
            INSECURE,
            "this door is open beyond its machine and takes TLS only (--ssl-mode=REQUIRED, tls=true)",
        )


def _admit(wire: Wire, policy: LoginPolicy, name: str, answer: bytes, challenge: bytes, sha2: bool) -> None:
    if not policy.authenticator.admits(name, answer, challenge, wire.peer, sha2):
        given = "YES" if answer else "NO"
        raise ClientError(
            ACCESS_DENIED, f"Access denied for user '{name}'@'{wire.peer}' (using password: {given})"
        )
