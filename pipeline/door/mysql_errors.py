"""Errors as MySQL's clients know them: a number, a state, and the words of whoever found the fault."""

from __future__ import annotations

import duckdb
from mysql_mimic.types import Capabilities, uint_2

from pipeline.door.execution import Stopped
from pipeline.door.query_check import Unlisted
from pipeline.errors import QueryError

CONNECTIONS, ACCESS_DENIED, SYNTAX, UNKNOWN, BLOCKED = 1040, 1045, 1064, 1105, 1129
USER_CONNECTIONS, IDLE = 1203, 4031
DENIED, NO_TABLE, NO_COLUMN, NO_FUNCTION, READ_ONLY = 1142, 1146, 1054, 1305, 1290
MEMORY, WRONG_VALUE, INSECURE, UNKNOWN_COMMAND, NO_STATEMENT, NO_THREAD = 1041, 1292, 3159, 1047, 1243, 1094
TOO_LONG, NO_DATABASE, TOO_MANY_STATEMENTS = 1153, 1049, 1461
_STATES = {
    CONNECTIONS: "08004", USER_CONNECTIONS: "42000", ACCESS_DENIED: "28000", SYNTAX: "42000", DENIED: "42000", NO_TABLE: "42S02",
    NO_COLUMN: "42S22", NO_FUNCTION: "42000", WRONG_VALUE: "22007", UNKNOWN_COMMAND: "08S01", 1317: "70100",
}  # fmt: skip
MESSAGE = 8 * 1024


class ClientError(Exception):
    """Something is not done; `code` and `text` are for the client."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code, self.text = code, text


def refusal(error: Exception) -> ClientError:
    """What the client is told of an error."""
    if isinstance(error, ClientError):
        return error
    if isinstance(error, Stopped):
        return ClientError(error.code, error.text)
    if isinstance(error, QueryError):
        return ClientError(_code(error), str(error).partition("\n\nStack Trace:")[0])
    if isinstance(error, MemoryError | duckdb.OutOfMemoryException):
        return ClientError(MEMORY, "the question needs more memory than it may have; ask for less")
    return ClientError(UNKNOWN, f"the door stumbled ({type(error).__name__}); its log says more")


def packet(refused: ClientError, capabilities: Capabilities) -> bytes:
    """The packet that says so."""
    state = b"#" + _STATES.get(refused.code, "HY000").encode()
    text = refused.text.encode()[:MESSAGE].decode("utf-8", "ignore").encode()
    with_state = Capabilities.CLIENT_PROTOCOL_41 in capabilities
    return b"\xff" + bytes(uint_2(refused.code)) + (state if with_state else b"") + text


def _code(error: QueryError) -> int:
    cause = error.__cause__
    if isinstance(error, Unlisted):
        return NO_FUNCTION
    if isinstance(cause, duckdb.ParserException):
        return SYNTAX
    if isinstance(cause, duckdb.CatalogException):
        return NO_FUNCTION if "Function with name" in str(cause) else NO_TABLE
    if isinstance(cause, duckdb.BinderException):
        return NO_COLUMN if "column" in str(cause) else SYNTAX
    if isinstance(cause, duckdb.OutOfMemoryException):
        return MEMORY
    if isinstance(cause, duckdb.ConversionException):
        return WRONG_VALUE
    if isinstance(cause, duckdb.PermissionException):
        return DENIED
    return READ_ONLY if cause is None and "expected one SELECT" in str(error) else UNKNOWN
