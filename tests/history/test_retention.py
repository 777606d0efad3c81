"""Retention: what is older than its table is kept goes from the files and the ledger; the rest stays."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pipeline.catalog import Catalog
from pipeline.history import query, retention
from pipeline.history.housekeeping import Housekeeper
from pipeline.history.retention import Keep
from pipeline.rollup.delta import Fate
from pipeline.rollup.grid import DAY, HOUR

T = 1_767_225_600  # 2026-01-01T00:00:00Z
KEEP = Keep(
    raw=3 * DAY,
    widths={"10s": 6 * HOUR, "1m": 2 * DAY, "15m": 5 * DAY, "1h": 20 * DAY, "1d": 400 * DAY},
    fates=DAY,
    alerts=400 * DAY,
)


def counts(ledger: Any, catalog: Catalog, *names: str) -> list[Any]:
    con = query.open_views(ledger.data, catalog)
    return [con.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in names]


def prune(ledger: Any, catalog: Catalog) -> int:
    return retention.prune(ledger.ledger.cursor(), ledger.data, catalog, KEEP, ledger.ledger.fence)


@pytest.fixture
def ten_days(ledger: Any, rows: Any) -> Any:
    """A GPU sample at noon of each of ten days, published and sealed, the watermark at the end of the tenth."""
    for day in range(10):
        ledger.add("gpu", [rows.gpu(T + day * DAY + 12 * HOUR)])
        ledger.fates(Fate("telemetry.gpu", 0, rows.moment(T + day * DAY), "aggregated", "", 1))
    ledger.quarantine(
        [{"record_time": rows.moment(T), "time": rows.moment(T + 50 * DAY), "reason": "future"}]
    )
    ledger.add("billing", [rows.charge(T, T, "1", "a")])
    ledger.publish()
    ledger.seal()
    ledger.watermark(T + 10 * DAY)
    return ledger


def test_each_table_is_kept_as_long_as_it_says(ten_days: Any, catalog: Catalog) -> None:
    views = ("gpu", "gpu_10s", "gpu_1m", "gpu_15m", "gpu_1h", "gpu_1d", "fates", "quarantine", "billing_1d")
    assert counts(ten_days, catalog, *views) == [10, 10, 10, 10, 10, 10, 10, 1, 1]
    assert prune(ten_days, catalog) > 0
    assert counts(ten_days, catalog, *views) == [3, 0, 2, 5, 10, 10, 1, 0, 1]
    assert prune(ten_days, catalog) == 0


def test_a_pipelines_housekeeping_keeps_raw_rows_as_many_days_as_it_is_told(
    ten_days: Any, catalog: Catalog
) -> None:
    async def rounds(kept: Keep) -> None:
        housekeeper = Housekeeper(ten_days.ledger, 300.0, kept=kept)
        await housekeeper.keep()
        housekeeper.close()

    asyncio.run(rounds(Keep()))
    assert counts(ten_days, catalog, "gpu", "gpu_1h") == [10, 10]
    asyncio.run(rounds(Keep(raw=4 * DAY)))
    assert counts(ten_days, catalog, "gpu", "gpu_1h") == [4, 10]


def test_the_ledger_forgets_the_same_and_no_more(ten_days: Any, catalog: Catalog) -> None:
    prune(ten_days, catalog)
    for width, left in (("10s", 0), ("1m", 2), ("15m", 5), ("1h", 10), ("1d", 10)):
        for kind in ("partials", "bits"):
            found = ten_days.con.execute(f"SELECT count(*) FROM {kind}_gpu_{width}").fetchone()
            assert (kind, width, found) == (kind, width, (left,))
    recorded = {path for (path,) in ten_days.con.execute("SELECT path FROM files").fetchall()}
    assert {
        str(p.relative_to(ten_days.data)) for p in ten_days.data.glob("history/*/*/*/*.parquet")
    } == recorded
    assert ten_days.con.execute("SELECT count(*) FROM charges").fetchone() == (1,)


def test_a_row_older_than_a_table_is_kept_does_not_bring_its_file_back(
    ten_days: Any, catalog: Catalog, rows: Any
) -> None:
    """The ledger has forgotten the rest of that hour: a file of the late row alone would be a wrong one."""
    prune(ten_days, catalog)
    ten_days.add("gpu", [rows.gpu(T + 12 * HOUR + 1)])
    ten_days.publish(keep=KEEP)
    assert counts(ten_days, catalog, "gpu_10s", "gpu_1m", "gpu_15m") == [0, 2, 5]
    con = query.open_views(ten_days.data, catalog)
    first_day = f"SELECT samples FROM gpu_1d WHERE window_start = make_timestamp({T}000000)"
    assert con.execute(first_day).fetchall() == [(2,)]


def test_nothing_goes_before_there_is_a_watermark(ledger: Any, catalog: Catalog, rows: Any) -> None:
    ledger.add("gpu", [rows.gpu(0)])
    ledger.publish()
    ledger.seal()
    assert prune(ledger, catalog) == 0
    assert counts(ledger, catalog, "gpu", "gpu_10s") == [1, 1]


def test_what_was_delivered_a_week_ago_leaves_the_outbox_and_what_waits_or_was_refused_stays(
    ledger: Any, catalog: Catalog
) -> None:
    def row(seq: int, day: int, delivered: str = "NULL", next_try: str = "NULL") -> str:
        return f"({seq}, '2026-01-{day:02}', 'webhook', '{{}}', 1, {next_try}, {delivered}, NULL)"

    rows = [
        row(1, 1, delivered="TIMESTAMP '2026-01-01'"),
        row(2, 1),
        row(3, 1, next_try="TIMESTAMP '9999-12-31'"),
        row(4, 10, delivered="TIMESTAMP '2026-01-10'"),
        row(5, 12, delivered="TIMESTAMP '2026-01-12'"),
    ]
    ledger.con.execute(f"INSERT INTO outbox VALUES {', '.join(rows)}")
    prune(ledger, catalog)
    left = ledger.con.execute("SELECT seq FROM outbox ORDER BY seq").fetchall()
    assert left == [(2,), (3,), (4,), (5,)]
