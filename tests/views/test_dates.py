"""The column `date` of everything that is published by the day: the day of each row, and the files that stay closed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from duckdb import DuckDBPyConnection

from pipeline.catalog import load
from pipeline.errors import QueryError
from pipeline.history import query
from pipeline.rollup.delta import Fate
from pipeline.views.published import MOMENT, published_tables

MIDNIGHT = 1_767_312_000  # 2026-01-02T00:00:00Z
FIRST, SECOND = "2026-01-01", "2026-01-02"
DATED = {table.view: table for table in published_tables(load()) if table.directory is not None}
READY = {"capacity": "date", "power": "date", "queue_wait": "date", "energy_mix": "date", "gpu_hours": "day"}
"""Ready views that read them from a time on, and the column that has the day."""
KINDS = ("CapacityShortfall", "PowerCeilingExceeded", "QueueWaitBreach")


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory, make_ledger: Any, rows: Any) -> Path:
    """DATA with a row of every view in the last second of one day and in the first of the next."""
    # A name that has what the patterns of files and their directories have.
    small = make_ledger(tmp_path_factory.mktemp("all [of] it é") / "date=2020-01-01", load())
    for at in (MIDNIGHT - 1, MIDNIGHT):
        moment = rows.moment(at)
        small.add("gpu", [rows.gpu(at)])
        small.add("queue", [rows.queue(at, 30.0)])
        small.add("billing", [rows.charge(at, at, "1.00", str(at))])
        bill = {
            "InvoiceIssuerName": "azure",
            "DeliveryId": str(at),
            "BillingPeriodStart": moment,
            "BillingPeriodEnd": moment,
        }
        closed = {
            "RowCount": 0,
            "ControlTotal": "0",
            "time": moment,
            "source": "/bill",
            "id": str(at),
            "idx": 0,
        }
        small.add("deliveries", [bill | closed])
        site = {"provider": "azure", "region": "eastus", "site": "s1", "feed": "a", "source": "m"}
        small.add("energy", [{**site, "it_power_watts": 1e6, "time": moment, "id": str(at), "idx": 0}])
        small.quarantine([{"time": moment, "record_time": moment, "topic": "telemetry.gpu", "part": 0}])
        small.fates(Fate("telemetry.gpu", 0, rows.moment(at // 60 * 60), "in", "", 1))
        for kind in KINDS:
            insert(small, "readings", time=moment, contract="c", clause=kind, alertname=kind, by_values="{}")
        insert(
            small, "alerts", time=moment, contract="c", clause="a", alertname="A", labels="{}", state="firing"
        )
        insert(small, "health", time=moment, topic="telemetry.gpu", lag=1)
        insert(small, "set_aside", minute=rows.moment(at // 60 * 60), topic="telemetry.gpu", part=0, n=1)
    small.seal()
    small.publish()
    small.close()
    data: Path = small.data
    return data


def insert(small: Any, view: str, **row: Any) -> None:
    names = ", ".join(f'"{name}"' for name in row)
    small.con.execute(f"INSERT INTO {view}({names}) VALUES ({', '.join('?' * len(row))})", list(row.values()))
    small.con.execute("INSERT INTO dirty VALUES (?, ?)", [view, row.get("time", row.get("minute"))])


@pytest.fixture(scope="module")
def whole(history: Path) -> Iterator[DuckDBPyConnection]:
    """Views over it."""
    # By another name than its files will have: DuckDB's own have no `..`.
    with query.open_views(history / ".." / history.name, load()) as con:
        yield con


@pytest.fixture(scope="module")
def closed(history: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DuckDBPyConnection]:
    """Views over a copy, in which every file of the first day is broken: to open one is an error."""
    data = Path(shutil.copytree(history, tmp_path_factory.mktemp("closed") / "data"))
    for path in data.glob(f"**/date={FIRST}/**/*.parquet"):
        path.write_bytes(b"nobody reads this")
    with query.open_views(data, load()) as con:
        yield con


def moment_of(view: str) -> str:
    """The column by which rows are put into files."""
    columns = dict(DATED[view].columns)
    by_default = "window_start" if "window_start" in columns else "time"
    return "record_time" if view == "quarantine" else MOMENT.get(view, by_default)


@pytest.mark.parametrize("view", DATED)
def test_it_is_the_day_of_the_rows_own_time_in_utc(view: str, whole: DuckDBPyConnection) -> None:
    sql = f'SELECT DISTINCT date::VARCHAR, "{moment_of(view)}"::DATE::VARCHAR FROM {view} ORDER BY ALL'
    assert list(query.ask(whole, sql).rows) == [(FIRST, FIRST), (SECOND, SECOND)]


@pytest.mark.parametrize("view", DATED)
def test_it_is_the_last_column_and_nothing_else_of_a_path_is_one(
    view: str, whole: DuckDBPyConnection
) -> None:
    *others, last = query.ask(whole, f"FROM {view}").columns
    assert last == "date" and not {"date", "hour", "filename"} & set(others)


@pytest.mark.parametrize("view", [*DATED, *READY])
def test_a_condition_on_it_leaves_the_files_of_other_days_unopened(
    view: str, closed: DuckDBPyConnection
) -> None:
    day = READY.get(view, "date")
    with pytest.raises(QueryError, match="No magic bytes"):
        query.ask(closed, f"SELECT * FROM {view}")
    range_of = "make_timestamp(1767312000000000)::DATE AND TIMESTAMP '2026-01-02 12:00:00'::DATE"
    (row,) = query.ask(
        closed, f"SELECT DISTINCT {day}::VARCHAR FROM {view} WHERE {day} BETWEEN {range_of}"
    ).rows
    assert row == (SECOND,)
