"""What every listener of ours has in common: where it may be open, TLS, its address, and its life as a child.

Beyond the loopback a users file and TLS are demanded, of the SQL door as of the board.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import sys
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from pipeline.errors import SettingsError
from pipeline.settings import refuse_open_rights


@dataclass(frozen=True, slots=True)
class Listening:
    """What every listener is opened with: what it reads, where it listens, who may come in."""

    data: Path
    schemas: Path | None = None
    bind: str = "127.0.0.1"
    port: int = 0
    tls_cert: Path | None = None
    tls_key: Path | None = None
    users: Path | None = None


def opens_beyond(name: str, bind: str, users: Path | None, cert: Path | None, key: Path | None) -> bool:
    """Whether `bind` can be reached from other machines.  Raises SettingsError unless what that needs is there.

    `name`: the command, for the message.
    """
    if (cert is None) != (key is None):
        raise SettingsError(f"{name}: found one of --tls-cert and --tls-key, expected both or none")
    if is_loopback(bind):
        return False
    missing = [option for option, value in (("--users", users), ("--tls-cert", cert)) if not value]
    if missing:
        raise SettingsError(
            f"--bind {bind}: open beyond this machine, without {' and '.join(missing)}; expected a users "
            "file and TLS (--users FILE --tls-cert FILE --tls-key FILE; of `run` the settings users, tls_cert and tls_key), or "
            "--bind 127.0.0.1"
        )
    return True


def is_loopback(host: str) -> bool:
    """Whether every address that the name stands for stays on this machine."""
    try:
        found = socket.getaddrinfo(host, None, proto=socket.IPPROTO_TCP)
    except OSError as error:
        raise SettingsError(f"--bind: {host!r} is no address of this machine ({error})") from error
    return all(ip_address(str(address[4][0]).partition("%")[0]).is_loopback for address in found)


def tls_context(cert: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """What TLS is spoken with, 1.2 or later; None without a certificate.  Raises SettingsError."""
    if cert is None:
        return None
    for file in (cert, key):
        if file is not None:
            refuse_open_rights(file)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(cert, key)
    except OSError as error:  # ssl.SSLError is one
        raise SettingsError(
            f"TLS: {cert}, {key} cannot be used ({error}); expected a certificate and its key as PEM"
        ) from error
    return context


def spelled(host: str, port: int) -> str:
    """HOST:PORT, with an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def await_end_of_input(
    loop: asyncio.AbstractEventLoop, stop: asyncio.Event, told: Callable[[bytes], None] = lambda word: None
) -> None:
    """Whoever started us holds the other end: it ends with them, however they end.  For a thread of its own.

    `told` gets what they say first, a line.
    """
    said: bytes | None = b""
    while piece := os.read(sys.stdin.fileno(), 4096):
        if said is not None and (said := said + piece).endswith(b"\n"):
            told(said.strip())
            said = None
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(stop.set)
