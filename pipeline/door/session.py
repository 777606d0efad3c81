"""What a connection has set for itself: MySQL's session variables, as far as they mean anything here.

The three that would change the meaning of text (`sql_mode`), of times (`time_zone`) or of letters are held: the first
two cannot be changed, and a driver that reads them quotes and converts correctly.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mysql_mimic.charset import CharacterSet

from pipeline.door.mysql_catalog import DATABASE, VERSION
from pipeline.door.mysql_errors import NO_DATABASE, ClientError
from pipeline.errors import QueryError

SQL_MODE = "ANSI_QUOTES,NO_BACKSLASH_ESCAPES,PIPES_AS_CONCAT"
UTC_NAMES = {"utc", "+00:00", "-00:00", "system", "etc/utc", "gmt", "z", "default"}
DATABASES = {DATABASE, "information_schema", ""}
CHARACTER_SETS = {"character_set_client", "character_set_connection", "character_set_results"}
OWN_WORDS = {
    "SET", "SHOW", "USE", "KILL", "BEGIN", "START", "COMMIT", "ROLLBACK", "DESCRIBE", "DESC", "EXPLAIN", "/*!",
}  # fmt: skip
"""What statements about the session or the catalog begin with: MySQL's, also where DuckDB has one of the same name."""
_FIRST = re.compile(r"(?:\s+|--[^\n]*\n|#[^\n]*\n|/\*[^!].*?\*/|\()*+(\w+|/\*!)", re.DOTALL)
"""Possessive (`*+`): forty blanks and a quote otherwise took a day, and every further one twice as long."""
_OF_SESSION = re.compile(
    r"@@|\binformation_schema\b|\b(?:database|schema|connection_id|version|(?:current_|session_|system_)?user)\s*+\(",
    re.IGNORECASE,
)
_FIXED: Mapping[str, Any] = {
    "auto_increment_increment": 1, "autocommit": True, "character_set_client": "utf8mb4",
    "character_set_connection": "utf8mb4", "character_set_database": "utf8mb4", "character_set_results": "utf8mb4",
    "character_set_server": "utf8mb4", "collation_connection": "utf8mb4_bin", "collation_database": "utf8mb4_bin",
    "collation_server": "utf8mb4_bin", "default_storage_engine": "DuckDB", "have_ssl": "YES", "init_connect": "",
    "interactive_timeout": None, "license": "Apache-2.0", "lower_case_table_names": 2, "max_execution_time": 0,
    "net_buffer_length": 16384, "net_read_timeout": 30, "net_write_timeout": 60, "performance_schema": False,
    "query_cache_size": 0, "query_cache_type": "OFF", "sql_auto_is_null": False, "sql_mode": SQL_MODE,
    "sql_select_limit": None, "system_time_zone": "UTC", "time_zone": "UTC", "transaction_isolation": "REPEATABLE-READ",
    "transaction_read_only": True, "tx_isolation": "REPEATABLE-READ", "tx_read_only": True, "version": VERSION,
    "version_comment": "Gigawatch", "wait_timeout": None, "warning_count": 0, "error_count": 0,
}  # fmt: skip


def first_word(sql: str) -> str:
    """The first word of a statement, in capitals; empty where there is none."""
    found = _FIRST.match(sql)
    return found[1].upper() if found else ""


def asks_of_session(sql: str) -> bool:
    """Whether a question may be about what only the session knows, or a catalog that DuckDB has in another form."""
    return _OF_SESSION.search(sql) is not None


@dataclass(slots=True)
class DoorSession:
    """Of one connection; `id` is what KILL calls it by."""

    id: int
    user: str = ""
    database: str = DATABASE
    charset: CharacterSet = CharacterSet.utf8mb4
    variables: dict[str, Any] = field(default_factory=lambda: dict(_FIXED))

    def as_json(self) -> dict[str, Any]:
        """What a statement may ask about its session."""
        return {"id": self.id, "user": self.user, "database": self.database, "variables": self.variables}

    def use(self, database: str) -> None:
        """The database that names without one belong to.  Raises ClientError."""
        if database.lower() not in DATABASES:
            raise ClientError(
                NO_DATABASE, f"Unknown database {database!r}; expected {DATABASE} or information_schema"
            )
        self.database = database.lower() or DATABASE

    def assign(self, wishes: Mapping[str, Any]) -> None:
        """SET.  Raises QueryError for what would silently change nothing and matters."""
        for name, value in wishes.items():
            if name == "names":
                self._letters(str(value))
            elif name in CHARACTER_SETS:
                if value is not None and name != "character_set_connection":
                    self._letters(str(value))
            elif name == "time_zone" and str(value or "default").lower() not in UTC_NAMES:
                raise QueryError(
                    f"time_zone: found {value!r}; all times are in UTC here, expected '+00:00' or 'UTC'"
                )
            elif name not in {"sql_mode", "time_zone", "version"}:
                self.variables[name] = _FIXED.get(name) if value is None else value

    def row_limit(self) -> int | None:
        """`sql_select_limit`, by which a client asks for less than the whole answer."""
        return _whole(self.variables.get("sql_select_limit"))

    def seconds(self) -> float | None:
        """`max_execution_time`, which MySQL counts in milliseconds."""
        milliseconds = _whole(self.variables.get("max_execution_time"))
        return milliseconds / 1000 if milliseconds else None

    def idle(self, limit: float) -> float:
        """`wait_timeout`, seconds; by which a client asks to be closed sooner than the limit says."""
        wanted = _whole(self.variables.get("wait_timeout"))
        return min(limit, wanted) if wanted else limit

    def _letters(self, name: str) -> None:
        try:
            self.charset = CharacterSet[
                {"utf8": "utf8mb4", "utf8mb3": "utf8mb4"}.get(name.lower(), name.lower())
            ]
            "".encode(self.charset.codec)
        except (KeyError, LookupError):
            raise QueryError(f"Unknown character set {name!r}; expected utf8mb4") from None
        self.variables |= dict.fromkeys(CHARACTER_SETS, self.charset.name)


def _whole(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError):
        return None
