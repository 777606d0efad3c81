"""What Grafana makes of a panel's SQL before the data source sees it: variables in the browser, then macros in the server.

Written after Grafana's own documentation and behaviour: the front end replaces `$name`, `${name}` and `${name:format}`
(a variable with several values or "All" is quoted and joined by commas, any other is put in as it stands, a custom value
for "All" goes in raw), then the MySQL data source replaces `$__interval`, and every `$__macro(arguments)` up to the
first `)`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

Value = str | Sequence[str]
_VARIABLE = re.compile(r"\$(\w+)|\$\{(\w+)(?::(\w+))?\}")
_MACRO = re.compile(r"\$([_a-zA-Z0-9]+)\(([^)]*)\)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0, "y": 31536000.0}
_ROUND_MS = (
    10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 15000, 20000, 30000, 60000, 120000, 300000, 600000, 900000,
    1200000, 1800000, 3600000, 7200000, 10800000, 21600000, 43200000, 86400000, 604800000, 2592000000, 31536000000,
)  # fmt: skip
"""The intervals that Grafana rounds to; between two of them it takes the one that is nearer."""


def expand(
    sql: str, start: float, end: float, *, variables: Mapping[str, Value] | None = None,
    document: Mapping[str, Any] | None = None, interval_ms: int = 60_000,
) -> str:  # fmt: skip
    """The SQL that reaches the data source for the range [start, end] in epoch seconds.

    `document` is the dashboard: its variables are at "All", or at what they are set to in the file, unless `variables`
    has other values.  Raises ValueError for a macro that Grafana does not know.
    """
    values = chosen(document, variables or {})
    values |= {"__from": str(int(start * 1000)), "__to": str(int(end * 1000))}
    values |= {"__interval": interval_text(interval_ms), "__interval_ms": str(interval_ms)}
    return macros(_filled_in(sql, values), int(start), int(end), interval_ms)


def chosen(document: Mapping[str, Any] | None, given: Mapping[str, Value]) -> dict[str, str]:
    """Each variable's text in SQL."""
    found = {name: _as_sql(value, several=True) for name, value in given.items()}
    for variable in (document or {}).get("templating", {}).get("list", ()):
        name, several = variable["name"], bool(variable.get("multi") or variable.get("includeAll"))
        if name in given:
            found[name] = _as_sql(given[name], several)
        elif variable["current"]["value"] == "$__all":
            found[name] = variable["allValue"]
        else:
            found[name] = _as_sql(variable["current"]["value"], several)
    return found


def _as_sql(value: Value, several: bool) -> str:
    """As the SQL data sources of Grafana put a value in."""
    if not isinstance(value, str):
        return ",".join(_as_sql(each, True) for each in value)
    escaped = value.replace("'", "''")
    return f"'{escaped}'" if several else escaped


def _filled_in(sql: str, values: Mapping[str, str]) -> str:
    def replaced(found: re.Match[str]) -> str:
        return values.get(found[1] or found[2], found[0])

    return _VARIABLE.sub(replaced, sql)


def macros(sql: str, start: int, end: int, interval_ms: int) -> str:
    """What the server of the data source does."""
    sql = sql.replace("$__interval_ms", str(interval_ms)).replace("$__interval", interval_text(interval_ms))
    sql = sql.replace("$__unixEpochFrom()", str(start)).replace("$__unixEpochTo()", str(end))
    return _MACRO.sub(
        lambda found: _macro(found[1], [a.strip(" ") for a in found[2].split(",")], start, end), sql
    )


def _macro(name: str, arguments: list[str], start: int, end: int) -> str:
    first = arguments[0]
    if name in ("__time", "__timeEpoch"):
        return f"UNIX_TIMESTAMP({first}) as time_sec"
    if name == "__timeFilter":
        return f"{first} BETWEEN FROM_UNIXTIME({start}) AND FROM_UNIXTIME({end})"
    if name in ("__timeFrom", "__timeTo"):
        return f"FROM_UNIXTIME({start if name == '__timeFrom' else end})"
    if name == "__unixEpochFilter":
        return f"{first} >= {start} AND {first} <= {end}"
    if name == "__unixEpochNanoFilter":
        return f"{first} >= {start * 10**9} AND {first} <= {end * 10**9}"
    if name in ("__unixEpochNanoFrom", "__unixEpochNanoTo"):
        return str((start if name.endswith("From") else end) * 10**9)
    if name.removesuffix("Alias") in ("__timeGroup", "__unixEpochGroup"):
        return _group(name, arguments)
    raise ValueError(f"Grafana's MySQL data source has no macro ${name}()")


def _group(name: str, arguments: list[str]) -> str:
    if len(arguments) < 2:
        raise ValueError(f"${name}() needs a time column and an interval")
    seconds = f"{interval_seconds(arguments[1].strip(chr(39) + chr(34))):g}"
    column = f"UNIX_TIMESTAMP({arguments[0]})" if "time" in name else arguments[0]
    return f"{column} DIV {seconds} * {seconds}" + (' AS "time"' if name.endswith("Alias") else "")


def interval_seconds(text: str) -> float:
    """`5m`, `500ms` or `1d` in seconds.  Raises ValueError."""
    if not (found := re.fullmatch(r"(\d+)(ms|[smhdwy])", text)):
        raise ValueError(f"{text!r} is no interval")
    return int(found[1]) * _UNITS[found[2]]


def interval_text(interval_ms: int) -> str:
    """60000 → `1m`, in the greatest unit that divides it."""
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if interval_ms >= size and interval_ms % size == 0:
            return f"{interval_ms // size}{unit}"
    return f"{interval_ms}ms"


def interval_of(panel: Mapping[str, Any], start: float, end: float) -> int:
    """The panel's interval in milliseconds over a range, as Grafana works it out from its data points and least interval."""
    width = (end - start) * 1000 / float(panel.get("maxDataPoints") or 1000)
    nearest = next(
        (low for low, high in itertools.pairwise(_ROUND_MS) if width < (low + high) / 2),
        _ROUND_MS[-1],
    )
    least = interval_seconds(panel["interval"]) * 1000 if panel.get("interval") else 1000
    return max(nearest, int(least))
