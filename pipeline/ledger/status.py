"""What the pipeline knows of itself, as one JSON document: `DATA/status.json`, replaced as a whole.

`gigawatch status` and the demo's report read it, beside a running pipeline and after it.  `snapshot` and
`write` are the pipeline's side, `read`, `writer_of` and `report` the reader's.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb

from pipeline.errors import LedgerError
from pipeline.secret import hidden

FATES = ("aggregated", "duplicate", "quarantined", "dead_lettered")
FILE = "status.json"
RESOLVED_KEPT = 500
"""Resolved alerts that the document holds at most, the newest: it is written every two seconds.  The rest
stays in the view `alerts`."""
FIRING_KEPT = 2_000
"""Alerts that fire which the document holds at most, the newest; and rows of standing, those of contracts first: a fleet
whose labels grow without end has a silent series for each."""
_STANDING = (
    "SELECT * FROM (SELECT * FROM standing ORDER BY contract = 'gigawatch', contract, clause, alertname, by_values "
    f"LIMIT {FIRING_KEPT}) ORDER BY contract, clause, alertname, by_values"
)
ALERT_KEYS = (
    *("alertname", "clause", "labels", "state", "active_at", "fired_at", "resolved_at"),
    *("observed", "bound", "unit"),
)
"""What a report says of an alert."""
NO_DELAY: Mapping[str, float | None] = {"p50": None, "p99": None}


def snapshot(con: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """Everything that the ledger itself can say; `con` is a cursor of its own."""
    by_topic = _by_topic(con)
    _add_set_aside(con, by_topic)
    events = {key: sum(counts[key] for counts in by_topic.values()) for key in ("in", *FATES)}
    return {
        "events": events,
        "by_topic": by_topic,
        "offsets": _offsets(con),
        "watermarks": {
            t: _utc(w) for t, w in con.execute("SELECT topic, watermark FROM frontier ORDER BY 1").fetchall()
        },
        "alerts": _alerts(con),
        "standing": _rows(con, _STANDING),
        "undelivered": _undelivered(con),
        "segments": _one(con, "SELECT count(*) FROM segments"),
    }


def _by_topic(con: duckdb.DuckDBPyConnection) -> dict[str, dict[str, Any]]:
    """What became of the events of each topic.

    The questions are no transaction: a topic whose first events come between two of them is in the later one alone.
    """
    found: dict[str, dict[str, Any]] = {}
    for (topic,) in con.execute(
        "SELECT DISTINCT topic FROM offsets UNION SELECT DISTINCT topic FROM fates ORDER BY 1"
    ).fetchall():
        found[topic] = _nothing()
    query = "SELECT topic, fate, reason, sum(n)::BIGINT FROM fates GROUP BY ALL ORDER BY ALL"
    for topic, fate, reason, n in con.execute(query).fetchall():
        counts = found.setdefault(topic, _nothing())
        counts[fate] += n
        if reason:
            counts["reasons"][reason] = counts["reasons"].get(reason, 0) + n
    return found


def _nothing() -> dict[str, Any]:
    return {"in": 0, **dict.fromkeys(FATES, 0), "reasons": {}, "set_aside": 0, "aside_reasons": {}}


def _add_set_aside(con: duckdb.DuckDBPyConnection, by_topic: dict[str, dict[str, Any]]) -> None:
    """How many samples of each topic were taken in without a measure, and why: no event is among the fates for it."""
    query = "SELECT topic, reason, sum(n)::BIGINT FROM set_aside GROUP BY ALL ORDER BY ALL"
    for topic, reason, n in con.execute(query).fetchall():
        counts = by_topic.setdefault(topic, _nothing())
        counts["set_aside"] += n
        counts["aside_reasons"][reason] = n


def _offsets(con: duckdb.DuckDBPyConnection) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for topic, part, offset in con.execute(
        "SELECT topic, part, next_offset FROM offsets ORDER BY 1, 2"
    ).fetchall():
        found.setdefault(topic, {})[str(part)] = offset
    return found


def evaluation(con: duckdb.DuckDBPyConnection, groups: Iterable[str]) -> dict[str, Any]:
    """How far `groups` (of clauses) are evaluated; nothing before the first is.

    `evaluated_to`: the last instant that all of them are evaluated to; `evaluated_share`: how much that is of the time
    from where the history of the one farthest behind begins to where its watermarks are, 0 to 1.
    """
    rows = con.execute(
        "SELECT e.instant, date_diff('second', began, e.instant), date_diff('second', began, min(f.instant)) "
        "FROM evaluated e JOIN frontier f ON list_contains(string_split(\"group\", '+'), f.topic) "
        'WHERE began IS NOT NULL AND list_contains(?, "group") GROUP BY "group", began, e.instant ORDER BY 1 LIMIT 1',
        [list(groups)],
    ).fetchall()
    for instant, done, whole in rows:
        return {
            "evaluated_to": _utc(instant),
            "evaluated_share": round(done / whole, 4) if whole > 0 else 1.0,
        }
    return {}


def _alerts(con: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """Every alert that fires and the newest that have resolved: the last state of each firing, oldest first."""
    query = (
        "SELECT alertname, clause, labels, state, active_at, fired_at, resolved_at, observed, bound, unit, annotations, "
        "row_number() OVER (PARTITION BY alertname, contract, clause, fired_at, md5(labels_by) "
        "ORDER BY time DESC, resolved_at DESC NULLS LAST) AS newest FROM "
        "(SELECT *, (json_merge_patch(labels, '{\"severity\": null}'))::VARCHAR AS labels_by FROM alerts "
        "WHERE fired_at IS NOT NULL) QUALIFY newest = 1 ORDER BY fired_at, alertname, clause, labels"
    )
    rows = _rows(con, query)
    over = [row for row in rows if row["state"] == "resolved"]
    dropped = {id(row) for row in sorted(over, key=lambda row: str(row["resolved_at"]))[:-RESOLVED_KEPT]}
    firing = [row for row in rows if row["state"] != "resolved"]  # oldest first
    dropped |= {id(row) for row in firing[:-FIRING_KEPT]}
    found = []
    for row in rows:
        if id(row) in dropped:
            continue
        row.pop("newest")
        row["labels"], row["annotations"] = json.loads(row["labels"]), json.loads(row["annotations"])
        row["state"] = "resolved" if row["state"] == "resolved" else "firing"
        found.append(row)
    return found


def _undelivered(con: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    return _rows(
        con,
        "SELECT destination, count(*) AS count, min(created) AS oldest, arg_max(last_error, seq) AS last_error, "
        "count(*) FILTER (next_try >= TIMESTAMP '9999-01-01') AS refused "
        "FROM outbox WHERE delivered IS NULL GROUP BY destination ORDER BY destination",
    )


def _rows(con: duckdb.DuckDBPyConnection, query: str) -> list[dict[str, Any]]:
    result = con.execute(query)
    names = [column[0] for column in result.description or ()]
    return [
        {name: _plain(value) for name, value in zip(names, row, strict=True)} for row in result.fetchall()
    ]


def _one(con: duckdb.DuckDBPyConnection, query: str) -> Any:
    row = con.execute(query).fetchone()
    return row[0] if row else None


def _plain(value: Any) -> Any:
    return _utc(value) if isinstance(value, datetime) else value


def _utc(at: datetime) -> str:
    return at.replace(tzinfo=UTC).isoformat().replace("+00:00", "Z")


class StatusFile:
    """`DATA/status.json`, replaced as a whole by whichever thread has something to say.

    A thread that began to write while the pipeline ran may come after the one that says how it ended: it is not
    heard any more.
    """

    def __init__(self, data: Path) -> None:
        self._data = data
        self._writing = threading.Lock()
        self._ended = False

    def write(self, status: Mapping[str, Any]) -> None:
        """Say how a running pipeline does."""
        with self._writing:
            if not self._ended:
                _replace(self._data, status)

    def end(self, status: Mapping[str, Any]) -> None:
        """Say how a pipeline is that stops; this may be said again, but nothing else."""
        with self._writing:
            self._ended = True
            _replace(self._data, status)

    def fail(self, error: str) -> None:
        """Say in the last status that the pipeline ended, and why; where even that cannot be written, the log has it."""
        with contextlib.suppress(OSError, LedgerError):
            if (last := read(self._data)) is not None:
                self.end({**last, "state": "failed", "error": hidden(error)})


def _replace(data: Path, status: Mapping[str, Any]) -> None:
    staged = data / f".{FILE}.tmp"
    staged.write_text(json.dumps(status, indent=1, ensure_ascii=False), "utf-8")
    os.replace(staged, data / FILE)


def read(data: Path) -> dict[str, Any] | None:
    """The last status that was written; None when there is none that can be read."""
    try:
        found: dict[str, Any] = json.loads((data / FILE).read_text("utf-8"))
        return found
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return None
    except OSError as error:
        raise LedgerError(
            f"{data / FILE}: cannot be read ({error.strerror}); give the --data of a pipeline, and check rights"
        ) from error


def writer_of(data: Path) -> int | None:
    """The process that holds `DATA/lock` now; None when no pipeline runs on the directory."""
    try:
        with (data / "lock").open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                holder = file.read().strip()
                return int(holder) if holder.isdigit() else 0
            return None
    except OSError:
        return None


def age(status: Mapping[str, Any], now: float) -> float:
    """Seconds since the status was written; `now`: wall clock, epoch seconds."""
    return max(0.0, now - datetime.fromisoformat(status["written_at"]).timestamp())


def least_watermark(status: Mapping[str, Any]) -> float | None:
    """How far every topic that has begun is evaluated, epoch seconds; None before the first."""
    marks = [*status["watermarks"].values(), status.get("evaluated_to")]
    return min((datetime.fromisoformat(mark).timestamp() for mark in marks if mark), default=None)


def with_ends(status: Mapping[str, Any], ends: Mapping[str, Mapping[int, tuple[int, int]]]) -> dict[str, Any]:
    """The same with the lag that follows from `ends`: topic → partition → (first, end), asked of Kafka now.

    A partition that the ledger has never seen lags by all that it holds.
    """
    lag = {}
    for topic, parts in ends.items():
        stored = status["offsets"].get(topic, {})
        lag[topic] = {
            str(part): max(0, end - int(stored.get(str(part), first)))
            for part, (first, end) in sorted(parts.items())
        }
    return {**status, "lag": {**status["lag"], **lag}}


def report(
    status: Mapping[str, Any],
    *,
    missing: Sequence[Mapping[str, Any]] = (),
    unexpected: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """The figures and alerts of a run, for scripts; `missing` and `unexpected` against what a scenario promises."""
    by_topic = {
        topic: {key: counts[key] for key in ("in", *FATES)} for topic, counts in status["by_topic"].items()
    }
    return {
        "events": dict(status["events"]),
        "by_topic": by_topic,
        "set_aside": {
            topic: dict(counts.get("aside_reasons", {})) for topic, counts in status["by_topic"].items()
        },
        "offsets": status["offsets"],
        "rate_events_per_s": status["rate_events_per_s"],
        "freshness_s": status["freshness_s"],
        "decision_delay_s": status["decision_delay_s"],
        "alerts": [{key: alert[key] for key in ALERT_KEYS} for alert in status["alerts"]],
        "expected_alerts_missing": [dict(alert) for alert in missing],
        "unexpected_alerts": [dict(alert) for alert in unexpected],
    }
