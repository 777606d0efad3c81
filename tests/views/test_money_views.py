"""What was paid for beside what came of it: forecasts as they stood, what changed since yesterday, GPU-hours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from pipeline.catalog import Catalog
from pipeline.clauses import load_all, plan_of
from pipeline.history import query

DAY = 86_400
CONTRACT = """
metadata: {id: acme, version: "1"}
parties: {customer: Carrier, supplier: Acme}
term: {start: 2026-01-01, end: 2027-01-01}
currency: EUR
timezone: Europe/Berlin
capacity:
  - {id: floor, text: four GPUs, by: [region], counts: observed, committed_gpus: 4}
spend:
  tranches:
    - {id: march, from: 2026-03-01, to: 2026-04-01, ceiling: "2000", complete_after: 24h}
"""


def berlin(day: int, hour: int = 0) -> int:
    """An hour of March 2026 there, before its clocks change, as epoch seconds."""
    return int(datetime(2026, 3, day, hour, tzinfo=UTC).timestamp()) - 3600


@pytest.fixture
def make(tmp_path: Path, catalog: Catalog, make_ledger: Any) -> Iterator[Callable[[], Any]]:
    """A ledger that goes by the contract."""
    made: list[Any] = []
    path = tmp_path / "contract.yaml"
    path.write_text(CONTRACT, "utf-8")
    contracts = load_all(path)

    def make() -> Any:
        one = make_ledger(tmp_path / f"data-{len(made)}", catalog)
        one.ledger.use(contracts, plan_of(contracts, catalog), 0.0)
        made.append(one)
        return one

    yield make
    for one in made:
        one.close()


def asked(ledger: Any, catalog: Catalog, sql: str) -> list[tuple[Any, ...]]:
    ledger.publish()
    with query.open_views(ledger.data, catalog) as con:
        return list(query.ask(con, sql).rows)


def bill(ledger: Any, rows: Any, day: int, cost: str) -> None:
    """A day's usage, issued at the day's end."""
    charge = rows.charge(berlin(day), berlin(day + 1), cost, f"day-{day}", BillingCurrency="EUR")
    ledger.add("billing", [charge])


STOOD = "SELECT day, spent, forecast, crosses, complete_days, total_days, state FROM forecasts ORDER BY day"


def test_a_forecast_is_kept_as_it_stood_on_each_day(
    make: Callable[[], Any], catalog: Catalog, rows: Any
) -> None:
    ledger = make()
    ledger.watermark(berlin(1, 1))
    for day in (1, 2, 3):
        bill(ledger, rows, day, "60.00" if day < 3 else "90.000000000000003")
        ledger.watermark(berlin(day + 1, 12))
    # A day is complete 24 hours after its end.  The last row is of 4 March, noon.
    assert asked(ledger, catalog, STOOD) == [
        (date(2026, 3, 1), Decimal(0), None, None, None, None, "unknown"),
        (date(2026, 3, 2), Decimal(60), None, None, None, None, "unknown"),
        (date(2026, 3, 3), Decimal(120), Decimal(1860), None, 1, 31, "ok"),
        (date(2026, 3, 4), Decimal("210.000000000000003"), Decimal("1860"), None, 2, 31, "ok"),
    ]
    ledger.watermark(berlin(5, 6))
    (newest,) = asked(ledger, catalog, STOOD)[4:]
    # 210 in three days, 70 a day: 2,000 is passed on the 29th.
    assert newest == (
        date(2026, 3, 5), Decimal("210.000000000000003"), Decimal(2170), date(2026, 3, 29), 3, 31, "breach",
    )  # fmt: skip


def test_what_was_forecast_does_not_depend_on_when_it_was_evaluated(
    make: Callable[[], Any], catalog: Catalog, rows: Any
) -> None:
    live, replayed = make(), make()
    for one in (live, replayed):
        one.watermark(berlin(1, 1))
        for day in (1, 2):
            bill(one, rows, day, "60.00")
            if one is live:
                one.watermark(berlin(day, 12))
    for one in (live, replayed):
        one.watermark(berlin(4, 1))
    # What came before it was evaluated is known from the next instant on, in both.
    ends = "SELECT * FROM forecasts WHERE day >= DATE '2026-03-03' ORDER BY day"
    assert asked(live, catalog, ends) == asked(replayed, catalog, ends) != []


def test_since_yesterday_has_money_gpu_hours_and_breaches_of_each_clause(
    make: Callable[[], Any], catalog: Catalog, rows: Any
) -> None:
    ledger = make()
    start = berlin(4)
    # Five GPUs for two hours of the first day; of the second day four, and three for its last half hour.
    for day, seconds, gpus in ((0, 7200, 5), (1, 5400, 4), (1, 7200, 3)):
        since = 0 if gpus != 3 else 5400
        ledger.add(
            "gpu",
            [
                rows.gpu(start + day * DAY + at, gpu=n)
                for at in range(since, seconds, 30)
                for n in range(gpus)
            ],
        )
        if day == 0:
            bill(ledger, rows, 2, "100.00")
        ledger.watermark(start + day * DAY + seconds)
    bill(ledger, rows, 3, "80.000000000000001")
    ledger.watermark(start + DAY + 7260)
    found = asked(
        ledger, catalog, "SELECT clause, quantity, unit, yesterday, now, change FROM since_yesterday"
    )
    told = {(clause, quantity): (unit, *rest) for clause, quantity, unit, *rest in found}
    assert told["march", "spent"] == (
        "EUR", Decimal(100), Decimal("180.000000000000001"), Decimal("80.000000000000001"),
    )  # fmt: skip
    assert told["march", "forecast"] == ("EUR", Decimal(1550), Decimal(1860), Decimal(310))
    # A reading sees what came in the 90 s before it, unless the source has stopped by then: five GPUs at 120 full
    # minutes; four at 91, and three at 29.
    hours = Decimal(10), Decimal("7.516667")
    assert told["floor", "gpu_hours"] == ("h", *hours, hours[1] - hours[0])
    # While nothing came nothing is known.  At the end one is missing.
    assert told["floor", "breaches"] == ("times", 0, 1, 1)
    assert told["floor", "breach_minutes"] == (
        "min",
        0,
        30,
        30,
    )  # three are too few even if all that fell silent were there
    (known,) = asked(
        ledger, catalog, "SELECT yesterday_hours, now_hours FROM since_yesterday WHERE quantity = 'gpu_hours'"
    )
    assert known == (2, pytest.approx(121 / 60))
