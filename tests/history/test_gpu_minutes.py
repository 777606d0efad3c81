"""GPU-minutes and GPU-hours: each GPU once in each minute, wherever it was, and what silence explains of a bill."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from pipeline.catalog import Catalog
from pipeline.history import compact, query, retention

T = 1_796_167_800  # 2026-12-01T23:30:00Z
DAY = 86_400
Row = tuple[Any, ...]


def asked(ledger: Any, catalog: Catalog, sql: str) -> list[Row]:
    ledger.publish()
    with query.open_views(ledger.data, catalog) as con:
        return list(query.ask(con, sql).rows)


def reports(
    rows: Any, seconds: Iterable[int], gpus: Iterable[int] = (0,), **more: Any
) -> list[dict[str, Any]]:
    """A sample of each GPU at each of the seconds after T."""
    return [rows.gpu(T + at, gpu=n, **more) for at in seconds for n in gpus]


def pass_on(ledger: Any, at: int) -> None:
    """Lets event time go on to `at` without judging all instants up to there, which takes its time."""
    ledger.con.execute(f"UPDATE frontier SET watermark = {_sql(at)}")


MINUTES = "SELECT sum(delivered), sum(healthy), sum(used), sum(silent), sum(covered) FROM gpu_minutes"


def test_a_gpu_counts_for_the_minutes_in_which_it_reported(ledger: Any, catalog: Catalog, rows: Any) -> None:
    ledger.add("gpu", reports(rows, range(0, 600, 30), range(3), health="ok", engine_active_ratio=0.9))
    ledger.add("gpu", reports(rows, range(600, 720, 30), range(2), health="failed"))
    ledger.watermark(T + 720)
    # Three for ten minutes, two for two more, which had failed.  Source and labels are the same, so nothing is silent.
    assert asked(ledger, catalog, MINUTES) == [(34, 30, 30, 0, 12)]


def test_a_gpu_that_moves_counts_once_and_leaves_nothing_silent_behind(
    ledger: Any, catalog: Catalog, rows: Any
) -> None:
    before, after = reports(rows, range(0, 300, 30)), reports(rows, range(300, 900, 30), cluster="c0")
    for row in after:
        row["cluster"], row["site"] = "c9", "s9"
    ledger.add("gpu", before)
    ledger.add("gpu", after)
    ledger.watermark(T + 1800)
    assert asked(ledger, catalog, MINUTES) == [(15, 15, 0, 15, 15)]
    by_quarter = f"SELECT epoch(window_start)::BIGINT - {T}, delivered, silent FROM gpu_minutes ORDER BY 1"
    assert asked(ledger, catalog, by_quarter) == [(0, 15, 0), (900, 0, 15)]


def test_a_gpu_that_two_clusters_report_for_ever_is_one(ledger: Any, catalog: Catalog, rows: Any) -> None:
    for cluster in ("c1", "c2"):
        found = reports(rows, range(0, 900, 30), cluster="c0")
        for row in found:
            row["cluster"], row["id"] = cluster, f"{cluster}-{row['id']}"
        ledger.add("gpu", found)
    ledger.watermark(T + 900)
    assert asked(ledger, catalog, MINUTES) == [(15, 15, 0, 0, 15)]


def test_the_gpus_of_a_source_that_stops_are_silent_for_a_day(
    ledger: Any, catalog: Catalog, rows: Any
) -> None:
    ledger.add("gpu", reports(rows, range(0, 600, 30), range(4), cluster="stops"))
    ledger.add("gpu", reports(rows, range(0, 1200, 30), range(2), cluster="stays"))
    ledger.watermark(T + 1200)
    # Six for ten minutes, two for ten more; of those four are silent, as far as their quarter of an hour is over.
    assert asked(ledger, catalog, MINUTES) == [(80, 80, 0, 20, 20)]
    # Then nothing comes at all: no batch, but time goes on.
    ledger.watermark(T + 3600)
    assert asked(ledger, catalog, MINUTES) == [(80, 80, 0, 4 * 50 + 2 * 40, 20)]
    pass_on(ledger, T + 2 * DAY)
    (found,) = asked(ledger, catalog, MINUTES)
    # A day from the beginning of the quarter of an hour in which they were last heard.
    assert found[3] == 4 * (1440 - 10) + 2 * (15 + 1440 - 20)
    later = "SELECT count(*) FROM gpu_minutes WHERE window_start >= TIMESTAMP '2026-12-02 23:45:00'"
    assert asked(ledger, catalog, later) == [(0,)]


def test_late_samples_take_the_place_of_silence(ledger: Any, catalog: Catalog, rows: Any) -> None:
    ledger.add("gpu", reports(rows, range(0, 300, 30)))
    ledger.watermark(T + 1800)
    assert asked(ledger, catalog, MINUTES) == [(5, 5, 0, 25, 5)]
    ledger.add("gpu", reports(rows, range(300, 1800, 30)))
    assert asked(ledger, catalog, MINUTES) == [(30, 30, 0, 0, 30)]


@pytest.mark.parametrize(("interval", "minutes"), [(60, 60), (120, 60), (300, 60), (900, 60), (3600, 60)])
def test_a_slow_source_counts_for_as_long_as_it_says(
    interval: int, minutes: int, ledger: Any, catalog: Catalog, rows: Any
) -> None:
    # Its clock is not exact: every other report is half a minute late.
    seconds = [at + (29 if n % 2 else 0) for n, at in enumerate(range(0, 3600, interval))]
    ledger.add("gpu", reports(rows, seconds, interval=interval))
    ledger.watermark(T + 3600)
    assert asked(ledger, catalog, MINUTES) == [
        (minutes, minutes, 0, 0, min(minutes, 60) if interval < 3600 else 15)
    ]


def test_gpu_hours_stand_beside_the_bill_and_say_what_silence_explains(
    ledger: Any, catalog: Catalog, rows: Any
) -> None:
    # Half of an hour with four GPUs, and for half of that two more; then their rack is silent.
    ledger.add("gpu", reports(rows, range(0, 1800, 30), range(4)))
    ledger.add("gpu", reports(rows, range(0, 900, 30), range(2), cluster="dark"))
    ledger.watermark(T + 1800)
    billed = {"ConsumedQuantity": "192", "ConsumedUnit": "Minutes"}
    ledger.add("billing", [rows.charge(T, T + 1800, "62.00", "one", **billed)])
    (found,) = asked(
        ledger,
        catalog,
        "SELECT delivered, covered_hours, silent, billed_quantity, difference, explained_by_silence, billed_cost, step_seconds "
        "FROM gpu_hours",
    )
    # 2.5 hours were seen and 3.2 are billed: 0.5 of the 0.7 between them were silent.
    assert found == (2.5, 0.5, 0.5, 3.2, pytest.approx(0.7), pytest.approx(5 / 7), Decimal(62), 60)


def test_more_delivered_than_billed_needs_no_explanation(ledger: Any, catalog: Catalog, rows: Any) -> None:
    ledger.add("gpu", reports(rows, range(0, 1800, 30)))
    ledger.watermark(T + 1800)
    half = {"ConsumedQuantity": "15", "ConsumedUnit": "Minutes"}
    ledger.add("billing", [rows.charge(T, T + 1800, "1.00", "one", **half)])
    asking = "SELECT delivered, billed_quantity, difference, explained_by_silence FROM gpu_hours"
    assert asked(ledger, catalog, asking) == [(0.5, 0.25, -0.25, None)]


def test_any_batching_of_the_same_samples_gives_the_same_minutes(
    make_ledger: Any, tmp_path: Any, catalog: Catalog, rows: Any
) -> None:
    moved = reports(rows, range(450, 1500, 30), range(2))
    for row in moved:
        row["cluster"] = "c9"
    samples = (
        reports(rows, range(0, 1500, 30), range(3), cluster="c1")
        + reports(rows, range(0, 450, 30), range(2))
        + moved
    )
    found = []
    for batch in (len(samples), 40):
        ledger = make_ledger(tmp_path / str(batch), catalog)
        for i in range(0, len(samples), batch):
            ledger.add("gpu", samples[i : i + batch])
            if i % 3 == 0:
                ledger.publish()
        ledger.watermark(T + 1800)
        found.append(asked(ledger, catalog, "SELECT * FROM gpu_minutes ORDER BY ALL"))
        ledger.close()
    assert found[0] == found[1] and len(found[0]) == 2


def test_minutes_outlive_the_bit_sets_that_they_were_counted_from(
    ledger: Any, catalog: Catalog, rows: Any
) -> None:
    ledger.add("gpu", reports(rows, range(0, 600, 30)))
    ledger.watermark(T + 600)
    counted = asked(ledger, catalog, MINUTES)
    ledger.add("gpu", [rows.gpu(T + 40 * DAY, cluster="later")])
    pass_on(ledger, T + 40 * DAY + 60)
    ledger.publish()
    compact.settle_rollups(ledger.con, ledger.data, catalog)
    retention.prune(ledger.con, ledger.data, catalog)
    assert not ledger.con.execute(
        f"SELECT 1 FROM bits_gpu_1m WHERE window_start < {_sql(T + DAY)}"
    ).fetchall()
    # Whoever comes that late is in the quarter-hours, not in the minutes.
    ledger.add("gpu", reports(rows, [300], range(5, 8)))
    first_day = f"{MINUTES} WHERE date = DATE '2026-12-01'"
    (found,) = asked(ledger, catalog, first_day)
    assert found[0] == counted[0][0] == 10


def test_days_before_gpu_minutes_were_kept_are_counted_by_quarters_and_say_so(
    ledger: Any, catalog: Catalog, rows: Any
) -> None:
    ledger.watermark(T)
    ledger.add("gpu", reports(rows, (0, 2 * DAY, 40 * DAY), range(2)))
    pass_on(ledger, T + 40 * DAY + 900)
    ledger.con.execute("DELETE FROM dirty")
    steps = "SELECT date::VARCHAR, sum(delivered), max(step_seconds) FROM gpu_minutes WHERE delivered > 0 GROUP BY 1 ORDER BY 1"
    for _ in range(4):
        ledger.publish()
    assert asked(ledger, catalog, steps) == [
        ("2026-12-01", 30, 900), ("2026-12-03", 30, 900), ("2027-01-10", 2, 60),
    ]  # fmt: skip


def _sql(at: int) -> str:
    return f"TIMESTAMP '{datetime.fromtimestamp(at, UTC).replace(tzinfo=None)}'"
