"""A real request to a server of ours, by which `run` sees that it answers: a question at the door, `/healthz` at the board.

The door lets `run` in by a word that both know, which goes over the door's standard input, and which the answer to
its challenge does not tell.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import struct
import time
from ipaddress import ip_address

from pipeline.serve.packet_reader import PacketReader
from pipeline.serve.users import PROBE, proof

QUESTION = b"\x03SELECT 1"
_CAPABILITIES = 0x00000200 | 0x00008000 | 0x00080000
"""Protocol 4.1, a password that is not sent, a plugin."""


def board_fault(address: str, tls: bool, seconds: float) -> str | None:
    """What is wrong with the board at HOST:PORT, in words; None when it answers within so many seconds."""
    host, port = reached(address)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # we have started it ourselves
    line = (
        http.client.HTTPSConnection(host, port, timeout=seconds, context=context)
        if tls
        else http.client.HTTPConnection(host, port, timeout=seconds)
    )
    try:
        line.request("GET", "/healthz")
        line.getresponse().read(1)
    except (OSError, http.client.HTTPException) as error:
        return _words(error, seconds)
    finally:
        line.close()
    return None


def door_fault(address: str, word: str, seconds: float) -> str | None:
    """What is wrong with the door at HOST:PORT, in words; None when it answers a question within so many seconds.

    An answer that refuses is one, too.  `word`: what proves that it is `run` that asks.
    """
    try:
        with socket.create_connection(reached(address), timeout=seconds) as line:
            _asked(_Packets(line, time.monotonic() + seconds), word)
    except (OSError, ValueError) as error:
        return _words(error, seconds)
    return None


def reached(address: str) -> tuple[str, int]:
    """Where a server that listens at HOST:PORT is reached from its own machine."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    if ip_address(host.partition("%")[0]).is_unspecified:
        host = "::1" if ":" in host else "127.0.0.1"
    return host, int(port)


class _Packets:
    """MySQL's packets over a plain connection, until a moment of the monotonic clock."""

    def __init__(self, line: socket.socket, until: float) -> None:
        self._line, self._until = line, until

    def read(self) -> bytes:
        """The next packet.  Raises OSError."""
        return self._exactly(int.from_bytes(self._exactly(4)[:3], "little"))

    def send(self, body: bytes, sequence: int) -> None:
        """One packet."""
        self._line.sendall(struct.pack("<I", len(body) | sequence << 24) + body)

    def _exactly(self, count: int) -> bytes:
        found = b""
        while len(found) < count:
            self._line.settimeout(max(0.001, self._until - time.monotonic()))
            if not (piece := self._line.recv(count - len(found))):
                raise ConnectionError("it closes the connection")
            found += piece
        return found


def _asked(packets: _Packets, word: str) -> None:
    """Login and question, each answered.  Raises OSError, ValueError."""
    hello = packets.read()
    if hello[:1] == b"\xff":  # it has too many clients: that is an answer
        return
    reader = PacketReader(hello)
    reader.take(1)
    reader.to_zero()
    reader.take(4)
    challenge = reader.take(8)
    reader.take(19)
    answer = proof(word.encode(), challenge + reader.take(12))
    body = struct.pack("<IIB23x", _CAPABILITIES, 1 << 24, 45) + PROBE.encode() + b"\0"
    packets.send(body + bytes([len(answer)]) + answer + b"mysql_native_password\0", 1)
    if packets.read()[:1] == b"\0":
        packets.send(QUESTION, 0)
        packets.read()


def _words(error: Exception, seconds: float) -> str:
    if isinstance(error, TimeoutError):
        return f"it did not answer within {seconds:.0f} s"
    return f"it did not answer ({str(error) or type(error).__name__})"
