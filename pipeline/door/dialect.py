"""What a MySQL client's statement means: a question in DuckDB's words, or a wish about its session.

Double quotes are names and backslashes are letters, as in DuckDB; the session says so (ANSI_QUOTES,
NO_BACKSLASH_ESCAPES), and drivers quote by that.  Everything here is text in, text out.  It runs in a process of its
own (`translator.py`): the parser needs minutes for some short texts, and nothing interrupts it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from sqlglot import ErrorLevel, TokenType, exp, parser
from sqlglot.dialects.mysql import MySQL
from sqlglot.errors import SqlglotError
from sqlglot.parsers.mysql import MySQLParser

from pipeline.door import show_statements
from pipeline.door.mysql_catalog import CATALOG_SCHEMA, CATALOG_VIEWS, DATABASE
from pipeline.rollup.quoting import literal

Session = Mapping[str, Any]
"""`user`, `id`, `database` and `variables` (name to value) of the one who asks."""
Meaning = dict[str, Any]
"""One of: `ask` (SQL for DuckDB), `set` (variables), `use`, `kill` ([id, kind]), `ok`, `error` ([code, text])."""

SYNTAX, UNSUPPORTED, DENIED = 1064, 1235, 1227


class DoorDialect(MySQL):
    """MySQL with ANSI_QUOTES, NO_BACKSLASH_ESCAPES and PIPES_AS_CONCAT."""

    class Tokenizer(MySQL.Tokenizer):
        IDENTIFIERS = ["`", '"']  # noqa: RUF012  # sqlglot's own form
        QUOTES = ["'"]  # noqa: RUF012
        STRING_ESCAPES = ["'"]  # noqa: RUF012

    class Parser(MySQLParser):
        DISJUNCTION = parser.Parser.DISJUNCTION
        FACTOR = {**MySQLParser.FACTOR, TokenType.DPIPE: exp.DPipe}  # noqa: RUF012


def meaning(sql: str, session: Session) -> Meaning:
    """What is to be done for one statement; an `error` says what is wrong with it."""
    sql = _plainer(sql)
    if _TRANSACTIONS.match(sql):
        return {"ok": True}  # everything is read-only: there is nothing to begin, keep or undo
    try:
        trees = [tree for tree in DoorDialect().parse(sql) if tree is not None]
        if len(trees) != 1:
            return _error(SYNTAX, f"found {len(trees) or 'no'} statements; expected one")
        return _meaning(trees[0], session)
    except SqlglotError as error:
        return _error(SYNTAX, re.sub(r"\x1b\[\d+m", "", str(error)))
    except RecursionError:
        return _error(SYNTAX, "the statement is nested too deeply; name its parts in WITH")


_TRANSACTIONS = re.compile(r"(?i)(BEGIN|START\s+TRANSACTION|COMMIT|ROLLBACK)\b[\w\s,]*;?$")
_SYNONYMS = (  # of SHOW, which the parser does not know
    (r"(?i)^(SHOW\s+(?:FULL\s+|EXTENDED\s+)*)FIELDS\b", r"\1COLUMNS"),
    (r"(?i)^SHOW\s+(KEYS|INDEXES)\b", "SHOW INDEX"),
    (r"(?i)^SHOW\s+GRANTS\s+FOR\b.*", "SHOW GRANTS"),
    (r"(?i)^SHOW\s+COUNT\s*\(\s*\*\s*\)\s+(WARNINGS|ERRORS)\b", r"SELECT 0 AS `@@session.\1_count`"),
    (r"(?is)^(SHOW\s+COLLATION\s+WHERE\b.*?)\bcharset\b", r'\1"Charset"'),
    (
        r"(?is)^SHOW\s+COLLATION\s+WHERE\b(.*)",
        rf"SELECT * FROM ({show_statements.COLLATION}) AS shown WHERE \1",
    ),
)


def _plainer(sql: str) -> str:
    """Without what the parser stumbles over.

    `/*!40101 SET NAMES utf8 */`, as dumps and old drivers write it, is a statement and no comment.
    """
    sql = re.sub(r"^(\s+|--[^\n]*\n|#[^\n]*\n|/\*[^!].*?\*/)*", "", sql, flags=re.DOTALL)
    found = re.fullmatch(r"/\*!\d*\s(.*?)\*/\s*;?\s*", sql, re.DOTALL)
    sql = found[1].strip() if found else sql.rstrip()
    for pattern, plain in _SYNONYMS:
        sql = re.sub(pattern, plain, sql)
    return sql


def _meaning(tree: exp.Expr, session: Session) -> Meaning:
    if isinstance(tree, exp.Query):
        return {"ask": duckdb_text(tree, session)}
    if isinstance(tree, exp.Show):
        return _shown(tree, session)
    if isinstance(tree, exp.Describe):
        return _described(tree)
    if isinstance(tree, exp.Set):
        return _assignments(tree, session)
    if isinstance(tree, exp.Use):
        return {"use": tree.this.name}
    if isinstance(tree, exp.Kill):
        return _kill(tree)
    return _error(UNSUPPORTED, f"found {tree.key.upper()}; expected a SELECT, SHOW, DESCRIBE or SET")


def _error(code: int, text: str) -> Meaning:
    return {"error": [code, text]}


# ------------------------------------------------------------------------------------------------------ questions


def duckdb_text(tree: exp.Expr, session: Session) -> str:
    """A query of MySQL as one of DuckDB."""
    if isinstance(tree, exp.Select):
        _keep_names(tree)
    ours = tree.transform(lambda node: _ours(node, session))
    return str(ours.sql(dialect="duckdb", unsupported_level=ErrorLevel.IGNORE, comments=False))


def _keep_names(select: exp.Select) -> None:
    """A column that is about to become a literal is still called what the client called it."""
    for item in list(select.expressions):
        if isinstance(item, exp.SessionParameter) or _of_session(item, {}) is not None:
            name = "DATABASE()" if isinstance(item, exp.CurrentSchema) else item.sql(dialect="mysql")
            item.replace(exp.alias_(item.copy(), name, quoted=True))


def _ours(node: exp.Expr, session: Session) -> exp.Expr:
    if isinstance(node, exp.SessionParameter):
        return _value(session["variables"].get(node.name.lower()))
    if (known := _of_session(node, session)) is not None:
        return _value(known)
    if isinstance(node, exp.Table):
        return _table(node, session)
    if isinstance(node, exp.Column) and node.text("db").lower() == "information_schema":
        return exp.column(node.this, table=node.args.get("table"))
    change = _CHANGES.get(type(node))
    return change(node) if change else node


def _of_session(node: exp.Expr, session: Session) -> Any:
    """What only the session knows; None for every other node."""
    if isinstance(node, exp.CurrentSchema):
        return session.get("database", DATABASE)
    if isinstance(node, exp.CurrentUser | exp.SessionUser):
        return f"{session.get('user', '')}@%"
    name = node.name.upper() if isinstance(node, exp.Anonymous) else ""
    if isinstance(node, exp.CurrentVersion) or name == "VERSION":
        return session.get("variables", {}).get("version", "")
    if name in {"DATABASE", "SCHEMA"}:
        return session.get("database", DATABASE)
    if name in {"USER", "SYSTEM_USER", "SESSION_USER", "CURRENT_USER"}:
        return f"{session.get('user', '')}@%"
    return session.get("id", 0) if name == "CONNECTION_ID" else None


def _value(value: Any) -> exp.Expr:
    if value is None:
        return exp.null()
    if isinstance(value, bool):
        return exp.Literal.number(int(value))
    if isinstance(value, int):
        return exp.Literal.number(value)
    return exp.Literal.string(str(value))


def _table(table: exp.Table, session: Session) -> exp.Expr:
    db, name = table.text("db").lower(), table.name.lower()
    in_catalog = db == "information_schema" or (not db and session["database"] == "information_schema")
    if in_catalog and name in CATALOG_VIEWS:
        table.set("db", exp.to_identifier(CATALOG_SCHEMA))
        table.set("catalog", None)
    elif not db and name == "dual" and isinstance(table.parent, exp.From):
        return exp.Subquery(this=exp.select("1"), alias=exp.TableAlias(this=exp.to_identifier("dual")))
    return table


def _from_unixtime(node: exp.Expr) -> exp.Expr:
    at = exp.Anonymous(this="from_unixtime", expressions=[node.this])
    form = node.args.get("format")
    return exp.TimeToStr(this=at, format=form) if form else at


def _moved(node: exp.Binary) -> exp.Expr:
    """A text that is moved by an interval is a time."""
    if (
        isinstance(node.expression, exp.Interval)
        and isinstance(node.this, exp.Literal)
        and node.this.is_string
    ):
        node.this.replace(exp.cast(node.this.copy(), exp.DataType.Type.TIMESTAMP))
    return node


def _dated(node: exp.Func) -> exp.Expr:
    """DATE_ADD and DATE_SUB as sums: sqlglot takes their texts for days, and drops the time of day."""
    span = exp.Interval(this=node.expression, unit=node.args.get("unit"))
    kind = exp.Sub if isinstance(node, exp.DateSub) else exp.Add
    return exp.Paren(this=_moved(kind(this=node.this, expression=span)))


def _apart(node: exp.Func) -> exp.Expr:
    """Texts between which a span is taken are times."""
    for name in ("this", "expression"):
        side = node.args.get(name)
        if isinstance(side, exp.Literal) and side.is_string:
            node.set(name, exp.cast(side.copy(), exp.DataType.Type.TIMESTAMP))
    return node


_CHANGES: dict[type[exp.Expr], Callable[[Any], exp.Expr]] = {
    exp.IntDiv: lambda node: exp.Anonymous(
        this="mysql_div", expressions=[_bare(node.this), _bare(node.expression)]
    ),
    exp.UnixToTime: _from_unixtime,
    exp.Add: _moved,
    exp.DateAdd: _dated,
    exp.DateSub: _dated,
    exp.DateDiff: _apart,
    exp.TimestampDiff: _apart,
    exp.Sub: _moved,
    exp.Introducer: lambda node: node.expression,
    exp.Collate: lambda node: node.this,
    exp.National: lambda node: exp.Literal.string(node.name),
}


def _bare(node: exp.Expr) -> exp.Expr:
    return node.this if isinstance(node, exp.Paren) else node


# ---------------------------------------------------------------------------------------------- SHOW and DESCRIBE


def _shown(show: exp.Show, session: Session) -> Meaning:
    kind = show.name.upper()
    select = show_statements.select(
        kind,
        target=show.text("target"),
        full=bool(show.args.get("full")),
        variables=session["variables"],
        user=str(session["user"]),
    )
    if select is None:
        return _error(UNSUPPORTED, f"SHOW {kind} is not served; SHOW TABLES and information_schema are")
    wish = show.args.get("where")
    condition = duckdb_text(wish.this if isinstance(wish, exp.Where) else wish, session) if wish else None
    return {"ask": show_statements.filtered(select, show.text("like"), condition)}


def _described(tree: exp.Describe) -> Meaning:
    this = tree.this
    if not isinstance(this, exp.Table):
        return {"ask": None}  # DESCRIBE SELECT is DuckDB's own, EXPLAIN is refused there
    column = tree.args.get("expressions")
    select = show_statements.select("COLUMNS", target=this.name, full=False, variables={}, user="")
    assert select is not None
    return {"ask": show_statements.filtered(select, column[0].name if column else "", None)}


# ---------------------------------------------------------------------------------------------------- the session


def _assignments(tree: exp.Set, session: Session) -> Meaning:
    found: dict[str, Any] = {}
    for item in tree.expressions:
        kind = item.text("kind").upper()
        if kind in {"GLOBAL", "PERSIST", "PERSIST_ONLY"}:
            return _error(DENIED, f"SET {kind} is for the server's own; expected a variable of the session")
        if kind in {"NAMES", "CHARACTER SET"}:
            name = item.name.lower()
            found["names"] = "utf8mb4" if name == "default" else name
        elif kind != "TRANSACTION":
            name, value = _assignment(item.this, session)
            if name in {None, "password", "role"}:
                return _error(
                    UNSUPPORTED, f"{name or value} is not served; expected a variable of the session"
                )
            found[str(name)] = value
    return {"set": found}


def _assignment(assignment: exp.Expr | None, session: Session) -> tuple[str | None, Any]:
    """(name, value); (None, what was found) for what is no variable of a session."""
    left = getattr(assignment, "this", None)
    if assignment is None or left is None or isinstance(left, exp.Parameter):
        return None, "a variable of the user (@name)"
    if isinstance(left, exp.SessionParameter) and left.text("kind").upper() in {"GLOBAL", "PERSIST"}:
        return None, f"a variable of {left.text('kind').upper()}"
    right = assignment.expression
    if isinstance(right, exp.SessionParameter):
        return left.name.lower(), session["variables"].get(right.name.lower())
    if isinstance(right, exp.Null) or right.name.upper() == "DEFAULT":
        return left.name.lower(), None
    if isinstance(right, exp.Literal) and not right.is_string:
        return left.name.lower(), int(right.name) if right.name.isdigit() else float(right.name)
    if isinstance(right, exp.Boolean):
        return left.name.lower(), int(right.this)
    return left.name.lower(), {"ON": 1, "OFF": 0}.get(right.name.upper(), right.name)


def _kill(tree: exp.Kill) -> Meaning:
    if not tree.this.name.isdigit():
        return _error(SYNTAX, f"KILL: found {literal(tree.this.name)}, expected the number of a connection")
    return {"kill": [int(tree.this.name), tree.text("kind").upper() or "CONNECTION"]}
