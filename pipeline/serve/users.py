"""Who may come in: a file of users with hashed passwords, and a stop for those who guess.

A line is `name:*HASH:HASH`: SHA1(SHA1(password)), as MySQL stores a native password, and SHA256(SHA256(password)), by
which clients log in that know only `caching_sha2_password`; the second may be left out.  They have no salt, so a short
password can be found from its hash: `gigawatch door --new-user` makes a long one.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import TypeVar

from pipeline.errors import SettingsError
from pipeline.settings import refuse_open_rights

K = TypeVar("K")
V = TypeVar("V")
NONCE = 20
FAILURES, WITHIN = 5, 60.0
"""So many failed logins of one user from one address within so many seconds, and they are not listened to until those
are over."""
MANY = 50
"""So many of whichever users from one address, or of one user from whichever: but whoever has come in from there is
listened to."""
ADDRESSES = 10_000
PROBE = "gigawatch run"
"""The name by which `run` asks its door whether it answers; it has a blank, which no name of a users file has."""


@dataclass(frozen=True, slots=True)
class Secret:
    """What is kept of a password, for both ways to log in; without `sha2` the second is closed."""

    native: bytes
    sha2: bytes | None


def read_users(file: Path) -> Mapping[str, Secret]:
    """Names and hashes.  Raises SettingsError that names the line."""
    try:
        refuse_open_rights(file)
        lines = file.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file}: the users cannot be read ({error}); check path and rights") from error
    users: dict[str, Secret] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        found = re.fullmatch(r"([^:\s]{1,32}):\*([0-9A-Fa-f]{40})(?::([0-9A-Fa-f]{64}))?", line.strip())
        if found is None:
            raise SettingsError(
                f"{file}:{number}: found no user; expected name:*HASH:HASH, as "
                "`gigawatch door --users FILE --new-user NAME` writes it"
            )
        if found[1] in users:
            raise SettingsError(
                f"{file}:{number}: found {found[1]!r} a second time; expected one line for each"
            )
        users[found[1]] = Secret(bytes.fromhex(found[2]), bytes.fromhex(found[3]) if found[3] else None)
    if not users:
        raise SettingsError(
            f"{file}: found no user; make one with `gigawatch door --users {file} --new-user NAME`"
        )
    return users


def add_user(file: Path | None, name: str) -> str:
    """Adds a line to the file, which is made for its owner alone if it is not there; the password, of 24 random bytes.

    Raises SettingsError.
    """
    if file is None:
        raise SettingsError("--new-user: found no --users, expected the file that the user is to be added to")
    password = secrets.token_urlsafe(24)
    line = entry(name, password)
    if file.exists() and file.stat().st_size and name in read_users(file):
        raise SettingsError(f"{file}: {name!r} is a user already; take the line out to give a new password")
    try:
        with open(
            os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "a", encoding="utf-8"
        ) as lines:
            lines.write(f"{line}\n")
    except OSError as error:
        raise SettingsError(f"{file}: the user cannot be written ({error}); check path and rights") from error
    return password


def entry(name: str, password: str) -> str:
    """The line of the users file.  Raises SettingsError for a name that cannot be one."""
    if re.fullmatch(r"[^:\s]{1,32}", name) is None:
        raise SettingsError(f"--new-user: found {name!r}, expected 1 to 32 characters without colon or space")
    once = password.encode()
    native = hashlib.sha1(hashlib.sha1(once).digest()).hexdigest().upper()
    return f"{name}:*{native}:{hashlib.sha256(hashlib.sha256(once).digest()).hexdigest().upper()}"


def nonce() -> bytes:
    """What the client mixes into its answer; letters only, for some clients take it for text."""
    return "".join(
        secrets.choice("abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789") for _ in range(NONCE)
    ).encode()


def proves(answer: bytes, challenge: bytes, stored: bytes, sha2: bool) -> bool:
    """Whether `answer` is H(password) XOR H(challenge, stored): MySQL's native password, with SHA-1.

    With `sha2` the hash is SHA-256, and the order is the other one: the fast path of caching_sha2_password.
    """
    hashed = hashlib.sha256 if sha2 else hashlib.sha1
    mask = hashed(stored + challenge if sha2 else challenge + stored).digest()
    if len(answer) != len(mask):
        return False
    candidate = bytes(a ^ b for a, b in zip(answer, mask, strict=True))
    return hmac.compare_digest(hashed(candidate).digest(), stored)


def proof(password: bytes, challenge: bytes) -> bytes:
    """The answer that `proves` expects of a native password."""
    once = hashlib.sha1(password).digest()
    mask = hashlib.sha1(challenge + hashlib.sha1(once).digest()).digest()
    return bytes(a ^ b for a, b in zip(once, mask, strict=True))


class Authenticator:
    """Lets users in.  Without a file everybody comes in, by any name: that is for the loopback."""

    def __init__(
        self, users: Mapping[str, Secret] | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._users = users
        self._clock = clock
        self._failures: OrderedDict[tuple[str, ...], list[float]] = OrderedDict()
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._word: bytes | None = None

    def use_probe_word(self, word: bytes) -> None:
        """What `run` will prove itself by."""
        self._word = word

    def blocked(self, address: str, name: str) -> bool:
        """Whether too many logins of that user from there have failed of late, or of many."""
        pair = (_origin(address), name)
        if name == PROBE or self._recent(pair, FAILURES):
            return name != PROBE
        return pair not in self._known and any(self._recent(key, MANY) for key in _wider(pair))

    def takes_sha2(self, name: str) -> bool:
        """Whether a user can log in by caching_sha2_password; also said of names that nobody has."""
        secret = (self._users or {}).get(name)
        return secret is None or secret.sha2 is not None

    def admits(self, name: str, answer: bytes, challenge: bytes, address: str, sha2: bool = False) -> bool:
        """Whether that is the user's password; an unknown name takes as long as a wrong password."""
        if name == PROBE:
            return self._word is not None and proves(answer, challenge, _twice(self._word), False)
        if self._users is None:
            return True
        secret = self._users.get(name)
        stored = (secret.sha2 if sha2 else secret.native) if secret else None
        proven = proves(answer, challenge, stored or bytes(32 if sha2 else 20), sha2)
        pair = (_origin(address), name)
        if stored is not None and proven:
            _keep(self._known, pair, None)
            return True
        for key, limit in ((pair, FAILURES), *((key, MANY) for key in _wider(pair))):
            _keep(self._failures, key, [*self._failures.get(key, []), self._clock()][-limit:])
        return False

    def knows(self, name: str, password: str, address: str) -> bool:
        """The same of a password that comes as it is, over TLS or on the loopback: HTTP's basic authentication."""
        challenge = nonce()
        return self.admits(name, proof(password.encode(), challenge), challenge, address)

    def _recent(self, key: tuple[str, ...], limit: int) -> bool:
        """Whether so many have failed of late."""
        return sum(self._clock() - at < WITHIN for at in self._failures.get(key, [])) >= limit


def _wider(pair: tuple[str, str]) -> list[tuple[str, ...]]:
    """What else a failure counts for: the address, and the user wherever it is."""
    return [(pair[0],), ("", pair[1])]


def _keep(kept: OrderedDict[K, V], key: K, value: V) -> None:
    """As the newest of at most `ADDRESSES`."""
    kept[key] = value
    kept.move_to_end(key)
    if len(kept) > ADDRESSES:
        kept.popitem(last=False)


def _twice(password: bytes) -> bytes:
    return hashlib.sha1(hashlib.sha1(password).digest()).digest()


def _origin(address: str) -> str:
    """An address; of IPv6 the 64 bits that one household or machine has for itself."""
    try:
        ip = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    return (
        str(IPv6Address(int(ip) >> 64 << 64))
        if isinstance(ip, IPv6Address) and not ip.ipv4_mapped
        else address
    )
