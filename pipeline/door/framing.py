"""MySQL's packets over one connection: framing with limits, TLS, and noticing that the client has gone.

`mysql-mimic` has a stream too.  It reads whatever size a client announces, breaks on a header that arrives in two
pieces, and loses a TLS hello that arrives together with the request for TLS; hence this one.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Sequence
from typing import Any

MAX_PACKET = 0xFFFFFF
CHUNK = 64 * 1024
AHEAD = 128 * 1024
"""Bytes that are read while a question runs; they are kept for later."""
PATIENCE = 10.0
"""Seconds that a client may take to make room for a short answer."""
LINGER = 1.0
"""Seconds that a connection which is closed has to take what waits for it."""


class HungUp(Exception):
    """The client has closed the connection."""


class Malformed(Exception):
    """The client does not speak the protocol, or sends more than it may."""


class PacketTooLong(Exception):
    """The client has sent a packet of more bytes than it may; the next one can be read."""


class Wire:
    """Packets in and out.  `limit`: the bytes that a packet from the client may have before its login."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: int) -> None:
        self._reader, self._writer = reader, writer
        self._raw, self._plain, self._out = bytearray(), bytearray(), bytearray()
        self._tls: _Tls | None = None
        self._sequence = 0
        self._limit = limit
        self._trusted = False

    def trust(self, limit: int) -> None:
        """After the login: packets may have so many bytes, and a longer one is let by, and refused."""
        self._limit, self._trusted = limit, True

    @property
    def peer(self) -> str:
        """The address of the client."""
        name: Any = self._writer.get_extra_info("peername")
        return str(name[0]) if name else "unknown"

    @property
    def encrypted(self) -> bool:
        """Whether TLS has begun."""
        return self._tls is not None

    async def read(self) -> bytes:
        """The next packet.  Raises HungUp, Malformed."""
        packet = bytearray()
        while True:
            header = await self._exactly(4)
            size, sequence = int.from_bytes(header[:3], "little"), header[3]
            if sequence != self._sequence % 256:
                raise Malformed(f"packet {sequence}, expected {self._sequence % 256}")
            self._sequence += 1
            if len(packet) + size > self._limit:
                await self._too_long(size)
            packet += await self._exactly(size)
            if size < MAX_PACKET:
                return bytes(packet)

    async def _too_long(self, size: int) -> None:
        """Raises PacketTooLong once what was announced has gone by, for a client listens only when it has sent it all."""
        text = f"a packet of more than {self._limit:,} bytes"
        if not self._trusted or size == MAX_PACKET:
            raise Malformed(text)
        while size:
            size -= len(await self._exactly(min(size, CHUNK)))
        raise PacketTooLong(text)

    def begin_command(self) -> None:
        """The next packet starts a new exchange."""
        self._sequence = 0

    def put(self, payload: bytes) -> None:
        """A packet to be sent with the next flush."""
        while True:
            part, payload = payload[:MAX_PACKET], payload[MAX_PACKET:]
            self._out += len(part).to_bytes(3, "little") + bytes([self._sequence % 256]) + part
            self._sequence += 1
            if len(part) < MAX_PACKET:
                return

    def put_rows(self, rows: Sequence[bytes]) -> None:
        """Many short packets."""
        out, sequence = self._out, self._sequence
        for row in rows:
            if (size := len(row)) >= MAX_PACKET:
                self._sequence = sequence
                self.put(row)
                sequence = self._sequence
                continue
            out += (size | (sequence & 0xFF) << 24).to_bytes(4, "little")
            out += row
            sequence += 1
        self._sequence = sequence

    @property
    def sequence(self) -> int:
        """Packets of this exchange so far, in and out."""
        return self._sequence

    @property
    def waiting(self) -> int:
        """Bytes that wait for a flush."""
        return len(self._out)

    async def flush(self, patience: float | None = PATIENCE) -> None:
        """Sends what was put; waits so many seconds while the client does not read.  Raises HungUp."""
        data, self._out = self._out, bytearray()
        try:
            self._writer.write(self._tls.encrypt(data) if self._tls else data)
            async with asyncio.timeout(patience):
                await self._writer.drain()
        except OSError as error:  # TimeoutError is one
            raise HungUp from error

    async def send(self, payload: bytes) -> None:
        """One packet, at once.  Raises HungUp."""
        self.put(payload)
        await self.flush()

    async def start_tls(self, context: ssl.SSLContext) -> None:
        """The server's side of a TLS handshake.  What has arrived already belongs to it."""
        tls = _Tls(context)
        tls.incoming.write(bytes(self._plain))
        self._plain.clear()
        while not tls.shaken():
            self._writer.write(tls.outgoing.read())
            await self._writer.drain()
            tls.incoming.write(await self._arriving())
        self._writer.write(tls.outgoing.read())
        await self._writer.drain()
        self._tls = tls

    async def hung_up(self) -> None:
        """Returns when the client closes the connection; to be cancelled when nobody wants to know any more."""
        with contextlib.suppress(OSError):
            while len(self._raw) < AHEAD:
                if not (data := await self._reader.read(AHEAD)):
                    return
                self._raw += data
            await asyncio.Event().wait()

    def close(self) -> None:
        """Closes the connection; what waits to be sent has `LINGER` to go."""
        self._writer.close()  # which waits until all has gone, for ever if nobody reads
        asyncio.get_running_loop().call_later(LINGER, self._writer.transport.abort)

    async def _exactly(self, count: int) -> bytes:
        while len(self._plain) < count:
            self._plain += await self._decrypted() if self._tls else await self._arriving()
        found = bytes(self._plain[:count])
        del self._plain[:count]
        return found

    async def _arriving(self) -> bytes:
        if not self._raw:
            try:
                self._raw += await self._reader.read(CHUNK)
            except OSError as error:
                raise HungUp from error
        if not self._raw:
            raise HungUp
        found = bytes(self._raw)
        self._raw.clear()
        return found

    async def _decrypted(self) -> bytes:
        assert self._tls is not None
        while not (data := self._tls.decrypt()):
            self._tls.incoming.write(await self._arriving())
        return data


class _Tls:
    """TLS over two buffers: it takes bytes that were read before it began, which asyncio's own loses."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._object = context.wrap_bio(self.incoming, self.outgoing, server_side=True)

    def shaken(self) -> bool:
        """Whether the handshake is done; if not, it wants more bytes."""
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError as error:
            raise Malformed(f"TLS: {error.reason}") from error
        return True

    def decrypt(self) -> bytes:
        """What can be read now; empty when more bytes must arrive."""
        try:
            if data := self._object.read(CHUNK):
                return data
        except ssl.SSLWantReadError:
            return b""
        except (ssl.SSLZeroReturnError, ssl.SSLError) as error:
            raise HungUp from error
        raise HungUp

    def encrypt(self, data: bytes | bytearray) -> bytes:
        """`data` as it goes over the line."""
        view = memoryview(data)
        while view:
            view = view[self._object.write(view) :]
        return self.outgoing.read()
