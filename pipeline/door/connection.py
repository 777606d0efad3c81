"""One client: its commands in order, each answered or refused; one question at a time, ended when it hangs up.

Longer than other files because a command is a few lines and there are many.  How rows go out is in `result_sender`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

import structlog
from mysql_mimic.packets import (
    make_column_definition_41,
    make_com_stmt_prepare_ok,
    make_eof,
)
from mysql_mimic.prepared import PreparedStatement
from mysql_mimic.types import Capabilities, Commands

from pipeline.door.engine import NOT_MYSQLS
from pipeline.door.execution import (
    DEADLY,
    INTERRUPTED,
    LOST,
    EngineRestarted,
    QueryScheduler,
    RunningQuery,
    Stopped,
)
from pipeline.door.fair_queue import Who
from pipeline.door.framing import HungUp, Malformed, PacketTooLong, Wire
from pipeline.door.login import STATUS, Login, LoginPolicy, change_user, login, ok
from pipeline.door.mysql_catalog import DATABASE
from pipeline.door.mysql_errors import (
    BLOCKED,
    DENIED,
    IDLE,
    NO_FUNCTION,
    NO_THREAD,
    SYNTAX,
    TOO_LONG,
    UNKNOWN_COMMAND,
    ClientError,
    packet,
    refusal,
)
from pipeline.door.packets import field_list
from pipeline.door.prepared import PreparedStatements
from pipeline.door.query_check import MAX_LENGTH, Unlisted
from pipeline.door.result_sender import ResultSender, Send
from pipeline.door.resultset import Column
from pipeline.door.session import OWN_WORDS, DoorSession, asks_of_session, first_word
from pipeline.door.translator import Translator
from pipeline.errors import QueryError
from pipeline.rollup.quoting import quoted

log = structlog.get_logger("door")

T = TypeVar("T")
LOGIN_SECONDS = 10.0
LOGIN_BYTES = 16 * 1024
TRIES = 3
"""So often a question is asked again when an engine has died of another one."""


class Connection:
    """One client, from its greeting to its end.

    `others`: everybody who is connected, by number; `room_for`: raises ClientError where there is none for a user.
    """

    def __init__(
        self,
        wire: Wire,
        number: int,
        policy: LoginPolicy,
        scheduler: QueryScheduler,
        translator: Translator,
        others: Mapping[int, Connection],
        room_for: Callable[[int, Who], None],
    ) -> None:
        self._wire, self._policy, self._scheduler = wire, policy, scheduler
        self._translator, self._others, self._room_for = translator, others, room_for
        self._capabilities = Capabilities.CLIENT_PROTOCOL_41
        self._login: Login | None = None
        self._running: RunningQuery | None = None
        self._prepared = PreparedStatements()
        self.session = DoorSession(number)

    async def serve(self) -> None:
        """Until the client says goodbye, hangs up, or is no longer understood."""
        try:
            await asyncio.wait_for(self._enter(), LOGIN_SECONDS)
            while True:
                self._wire.begin_command()
                await asyncio.sleep(0)  # many commands may lie ready: others have their turn, too
                try:
                    data = await asyncio.wait_for(self._wire.read(), self._patience)
                except TimeoutError:
                    raise ClientError(
                        IDLE, f"nothing was asked for {self._patience:.0f} s; connect again"
                    ) from None
                except PacketTooLong as error:
                    await self._say(ClientError(TOO_LONG, str(error)))
                    continue
                if not data or data[0] == Commands.COM_QUIT:
                    return
                await self._command(data[0], data[1:])
        except ClientError as refused:
            if refused.code not in {BLOCKED, IDLE}:  # a line for each would fill the disk
                log.info("refused", peer=self._wire.peer, why=refused.text)
            await self._say_last(refused)
        except (Malformed, PacketTooLong) as error:
            log.debug("not understood", peer=self._wire.peer, what=str(error))
            await self._say_last(ClientError(UNKNOWN_COMMAND, f"not understood: {error}"))
        except (HungUp, TimeoutError):
            pass
        finally:
            self._wire.close()

    def stop(self, code: int, text: str) -> None:
        """End the question that runs, if any."""
        if self._running is not None:
            self._running.stop(code, text)

    @property
    def who(self) -> Who | None:
        """Who has come in; None before its login."""
        return self._who if self._login else None

    @property
    def peer(self) -> str:
        """The client's address."""
        return self._wire.peer

    @property
    def _who(self) -> Who:
        return Who(self.session.user, self._wire.peer)

    @property
    def _patience(self) -> float:
        return self.session.idle(self._scheduler.limits.idle)

    @property
    def _results(self) -> ResultSender:
        return ResultSender(self._wire, self.session, self._capabilities, self._scheduler.limits.rows)

    def _room(self, user: str) -> None:
        self._room_for(self.session.id, Who(user, self._wire.peer))

    def hang_up(self) -> None:
        """End the question and the connection."""
        self.stop(LOST, "the connection is closed")
        self._wire.close()

    # -------------------------------------------------------------------------------------------------- commands

    async def _enter(self) -> None:
        self._welcome(await login(self._wire, self._policy, self.session.id, self._room))
        self._wire.trust(MAX_LENGTH + 1024)

    def _welcome(self, current: Login) -> None:
        self._login, self._capabilities = current, current.capabilities
        self._prepared = PreparedStatements()
        self.session = DoorSession(self.session.id, current.user, charset=current.charset)
        self.session.use(current.database)

    async def _say_last(self, refused: ClientError) -> None:
        with contextlib.suppress(HungUp, TimeoutError):
            await asyncio.wait_for(self._wire.send(packet(refused, self._capabilities)), 1.0)

    async def _command(self, command: int, data: bytes) -> None:
        do = self._COMMANDS.get(command)
        try:
            if do is None:
                raise ClientError(UNKNOWN_COMMAND, f"the command {command:#x} is not served")
            await do(self, data)
        except (HungUp, Malformed, asyncio.CancelledError):
            raise
        except Stopped as stopped:
            if stopped.code == LOST:
                raise HungUp from stopped
            await self._say(refusal(stopped))
        except Exception as error:
            if command == Commands.COM_CHANGE_USER:
                raise  # the old user is gone, and the new one has not come in
            said = refusal(error)
            if not isinstance(error, ClientError | QueryError | MemoryError):
                log.exception("a command failed", user=self.session.user)
            await self._say(said)

    async def _say(self, refused: ClientError) -> None:
        await self._wire.send(packet(refused, self._capabilities))

    async def _done(self, _: bytes = b"") -> None:
        await self._wire.send(ok(self._capabilities))

    async def _query(self, data: bytes) -> None:
        await self._statement(self._decoded(data), (), self._results.text)

    async def _use(self, data: bytes) -> None:
        self.session.use(self._decoded(data))
        await self._done()

    async def _reset(self, _: bytes) -> None:
        assert self._login is not None
        self._welcome(self._login)
        await self._done()

    async def _change_user(self, data: bytes) -> None:
        assert self._login is not None
        changed = change_user(self._wire, self._policy, self._login, data, self._room)
        self._welcome(await asyncio.wait_for(changed, LOGIN_SECONDS))

    async def _kill_by_number(self, data: bytes) -> None:
        await self._kill(int.from_bytes(data[:4], "little"), "CONNECTION")

    async def _statistics(self, _: bytes) -> None:
        await self._wire.send(f"Connections: {len(self._others)}".encode())

    async def _fields(self, data: bytes) -> None:
        """COM_FIELD_LIST: what the `mysql` client completes names by."""
        try:
            table = field_list(data, self.session.charset)
        except ValueError as error:
            raise ClientError(SYNTAX, f"a request for fields that cannot be read ({error})") from None
        columns: list[Column] = []

        async def keep(running: RunningQuery, found: list[Column]) -> None:
            columns.extend(found)

        await self._asked(f"SELECT * FROM {quoted(table)} LIMIT 0", (), keep)
        for one in columns:
            self._wire.put(one.definition(self.session.charset) + b"\xfb")
        self._wire.put(make_eof(self._capabilities, STATUS))
        await self._wire.flush()

    # ------------------------------------------------------------------------------------------------- statements

    async def _statement(self, sql: str, parameters: Sequence[Any], send: Send) -> None:
        own = first_word(sql) in OWN_WORDS
        if not own and not asks_of_session(sql) and self.session.database == DATABASE:
            return await self._asked(sql, parameters, send)
        meaning = await self._translator(sql, self.session.as_json())
        if meaning.get("ask"):
            return await self._asked(meaning["ask"], parameters, send)
        if "ask" in meaning or ("error" in meaning and not own):
            return await self._asked(sql, parameters, send)
        await self._carry_out(meaning)
        return None

    async def _carry_out(self, meaning: Mapping[str, Any]) -> None:
        if "error" in meaning:
            raise ClientError(*meaning["error"])
        if "kill" in meaning:
            return await self._kill(*meaning["kill"])
        if "use" in meaning:
            self.session.use(meaning["use"])
        self.session.assign(meaning.get("set", {}))
        await self._done()
        return None

    async def _kill(self, number: int, kind: str) -> None:
        other = self._others.get(number)
        if other is None:
            raise ClientError(NO_THREAD, f"no connection has the number {number}")
        if other.session.user != self.session.user:
            raise ClientError(DENIED, f"connection {number} is another user's")
        other.stop(INTERRUPTED, "the question was ended by KILL")
        if kind == "CONNECTION" and other is not self:
            other.hang_up()
        await self._done()

    async def _asked(self, sql: str, parameters: Sequence[Any], send: Send) -> None:
        """Runs a question and sends what comes of it; again where an engine had died before anything was sent."""

        async def once() -> None:
            await self._asked_once(sql, parameters, send)

        await self._tried(once)

    async def _tried(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        for _ in range(TRIES):
            before = self._wire.sequence
            try:
                return await work()
            except EngineRestarted:
                if self._wire.sequence != before:
                    raise
        return await work()

    async def _asked_once(self, sql: str, parameters: Sequence[Any], send: Send) -> None:
        """Listens whether the client is still there meanwhile."""
        running = self._running = self._scheduler.query(self._who, self.session.seconds())
        gone = asyncio.ensure_future(self._wire.hung_up())
        gone.add_done_callback(
            lambda task: None if task.cancelled() else running.stop(LOST, "the client has gone")
        )
        try:
            async with self._scheduler.place(running):
                await send(running, await self._begun(running, sql, parameters))
        finally:
            self._running = None
            gone.cancel()
            await asyncio.wait({gone})

    async def _begun(self, running: RunningQuery, sql: str, parameters: Sequence[Any]) -> list[Column]:
        """As DuckDB understands it; if it does not, as MySQL means it."""
        try:
            return await running.step(lambda: running.question.begin(sql, parameters))
        except QueryError as first:
            if not isinstance(first, Unlisted) and not isinstance(first.__cause__, NOT_MYSQLS):
                raise
            meaning = await self._translator(sql, self.session.as_json())
            if (text := meaning.get("ask")) is None or text == sql:
                raise
            try:
                return await running.step(lambda: running.question.begin(text, parameters))
            except QueryError as second:
                mysqls = refusal(first).code in {SYNTAX, NO_FUNCTION}
                raise (second if mysqls else first) from (second if mysqls else first).__cause__

    # ------------------------------------------------------------------------------------------------- preparation

    async def _prepare(self, data: bytes) -> None:
        sql = self._decoded(data)
        self._prepared.refuse_more(sql)
        statement = self._prepared.add(sql, await self._placeholders(sql))
        count = statement.count
        self._wire.put(make_com_stmt_prepare_ok(PreparedStatement(statement.number, sql, count)))
        for _ in range(count):
            self._wire.put(make_column_definition_41(server_charset=self.session.charset, name="?"))
        if count and Capabilities.CLIENT_DEPRECATE_EOF not in self._capabilities:
            self._wire.put(make_eof(self._capabilities, STATUS))
        await self._wire.flush()

    async def _placeholders(self, sql: str) -> int:
        """How many parameters a statement has."""
        return await self._tried(lambda: self._counted(sql)) if "?" in sql else 0

    async def _counted(self, sql: str) -> int:
        running = self._scheduler.query(self._who)
        async with self._scheduler.place(running):
            try:
                return await running.step(lambda: running.question.check(sql))
            except QueryError as error:
                if isinstance(error.__cause__, DEADLY):
                    raise
                meaning = await self._translator(sql, self.session.as_json())
                if (text := meaning.get("ask")) is None:
                    raise ClientError(SYNTAX, str(error)) from error
                return await running.step(lambda: running.question.check(text))

    async def _execute(self, data: bytes) -> None:
        sql, values = self._prepared.values(data, self.session.charset.codec)
        await self._statement(sql, values, self._results.binary)

    async def _long_data(self, data: bytes) -> None:
        self._prepared.keep_long_data(data)

    async def _reset_statement(self, data: bytes) -> None:
        self._prepared.reset(data)
        await self._done()

    async def _close_statement(self, data: bytes) -> None:
        self._prepared.close(data)

    def _decoded(self, data: bytes) -> str:
        try:
            return data.decode(self.session.charset.codec)
        except UnicodeDecodeError:
            raise ClientError(SYNTAX, f"the statement is no {self.session.charset.name}") from None

    _COMMANDS: Mapping[int, Callable[[Connection, bytes], Any]] = {
        Commands.COM_QUERY: _query,
        Commands.COM_PING: _done,
        Commands.COM_INIT_DB: _use,
        Commands.COM_FIELD_LIST: _fields,
        Commands.COM_STATISTICS: _statistics,
        Commands.COM_PROCESS_KILL: _kill_by_number,
        Commands.COM_CHANGE_USER: _change_user,
        Commands.COM_RESET_CONNECTION: _reset,
        Commands.COM_STMT_PREPARE: _prepare,
        Commands.COM_STMT_EXECUTE: _execute,
        Commands.COM_STMT_SEND_LONG_DATA: _long_data,
        Commands.COM_STMT_RESET: _reset_statement,
        Commands.COM_STMT_CLOSE: _close_statement,
    }
