"""The answer to a question on its way to the client: columns, rows as they come, and the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mysql_mimic.packets import make_column_count, make_eof
from mysql_mimic.types import Capabilities

from pipeline.door.execution import RunningQuery, Stopped, too_many_rows
from pipeline.door.framing import CHUNK, HungUp, Wire
from pipeline.door.login import STATUS, ok
from pipeline.door.resultset import Column, binary_row, text_row
from pipeline.door.session import DoorSession

Send = Callable[[RunningQuery, list[Column]], Any]


class ResultSender:
    """Sends over `wire` as a client of these `capabilities` reads it, `limit` rows at most."""

    def __init__(self, wire: Wire, session: DoorSession, capabilities: Capabilities, limit: int) -> None:
        self._wire, self._session, self._capabilities, self._limit = wire, session, capabilities, limit

    async def text(self, running: RunningQuery, columns: list[Column]) -> None:
        """The answer to COM_QUERY."""
        codec = self._session.charset.codec
        await self._send(running, columns, lambda row: text_row(row, codec))

    async def binary(self, running: RunningQuery, columns: list[Column]) -> None:
        """The answer to COM_STMT_EXECUTE."""
        codec = self._session.charset.codec
        await self._send(running, columns, lambda row: binary_row(row, columns, codec))

    async def _send(self, running: RunningQuery, columns: list[Column], pack: Callable[[Any], bytes]) -> None:
        """In pieces: as much as the client takes, and no more than the limit of rows."""
        limit, wanted = self._limit, self._session.row_limit()
        sent, batch = 0, await _packed(running, pack)
        self._put_columns(columns)
        while batch:
            left = min(limit, limit if wanted is None else wanted) - sent
            self._wire.put_rows(batch[:left])
            if self._wire.waiting > CHUNK:
                await self._flush(running)
            sent += min(left, len(batch))
            if len(batch) > left:
                if wanted is not None and wanted <= limit:
                    break
                raise too_many_rows(limit)
            batch = await _packed(running, pack)
        self._wire.put(self._end())
        await self._flush(running)

    async def _flush(self, running: RunningQuery) -> None:
        try:
            await running.within(self._wire.flush(patience=None))
        except Stopped as stopped:
            raise HungUp from stopped  # a packet may have gone out in part: nothing more can be said

    def _put_columns(self, columns: Sequence[Column]) -> None:
        self._wire.put(make_column_count(self._capabilities, len(columns)))
        for one in columns:
            self._wire.put(one.definition(self._session.charset))
        if Capabilities.CLIENT_DEPRECATE_EOF not in self._capabilities:
            self._wire.put(make_eof(self._capabilities, STATUS))

    def _end(self) -> bytes:
        if Capabilities.CLIENT_DEPRECATE_EOF in self._capabilities:
            return b"\xfe" + ok(self._capabilities)[1:]
        return bytes(make_eof(self._capabilities, STATUS))


async def _packed(running: RunningQuery, pack: Callable[[Any], bytes]) -> list[bytes]:
    return await running.step(lambda: [pack(row) for row in running.question.more()])
