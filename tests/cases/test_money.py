"""What is billed, from events to history, roll-ups and tranches."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any


def test_a_charge_of_no_region_sku_or_resource_counts(play: Callable[..., Any]) -> None:
    played = play("03", quiet=60)
    assert played.fates() == {("aggregated", ""): 1}
    assert played.standing()["TrancheExhausted", "y"] == ("breach", 100_000.0)
    assert "TrancheExhausted" in played.fired()


def test_a_cost_of_eleven_decimals_is_in_history_and_roll_ups(play: Callable[..., Any]) -> None:
    played = play("14")
    assert played.sql("SELECT BilledCost FROM billing") == [(Decimal("-0.00000000603"),)]
    assert played.sql("SELECT BilledCost_sum FROM billing_1d") == [(Decimal("-0.00000000603"),)]


def test_a_charge_period_without_seconds_is_read(play: Callable[..., Any]) -> None:
    played = play("15")
    assert played.fates() == {("aggregated", ""): 1}
    assert played.sql("SELECT sum(BilledCost_sum) FROM billing_1h") == [(Decimal("0.1"),)]


def test_a_price_is_for_an_hour_whatever_other_unit_the_bill_has_too(play: Callable[..., Any]) -> None:
    played = play("17")
    by_unit = "SELECT ConsumedUnit, sum(BilledCost_sum) / sum(ConsumedQuantity_sum) FROM billing_1d GROUP BY 1 ORDER BY 1"
    assert played.sql(by_unit) == [("Hours", 7.5), ("Seconds", 4200 / 2_016_000)]
    assert played.sql("SELECT billed_cost::DOUBLE / billed_quantity FROM gpu_hours") == [(7.5,)]


def test_a_leap_second_is_a_time(play: Callable[..., Any]) -> None:
    played = play("22")
    assert played.fates() == {("aggregated", ""): 1}


def test_the_rows_of_a_real_bill_that_name_no_region_or_resource_are_taken(play: Callable[..., Any]) -> None:
    played = play("30")
    assert played.fates() == {("aggregated", ""): 82}
    assert played.sql("SELECT sum(BilledCost) FROM billing") == [(Decimal("-2.03394186487"),)]
    assert played.sql("SELECT sum(BilledCost_sum) FROM billing_1d") == [(Decimal("-2.03394186487"),)]


def test_a_charge_without_a_rate_does_not_switch_a_tranche_off(play: Callable[..., Any]) -> None:
    played = play("04", quiet=60)
    assert played.standing()["TrancheExhausted", "y"] == ("breach", 9000.0)
    assert "TrancheExhausted" in played.fired()
    ((trust, sql),) = played.sql(
        "SELECT annotations ->> '$.trust', annotations ->> '$.sql' FROM alerts "
        "WHERE alertname = 'TrancheExhausted' AND state = 'firing'"
    )
    # Live, it fired before the other charge came.
    assert trust is None or "1 charge of 1.00 JPY (no rate from JPY to EUR on 2026-11-22" in trust
    assert played.sql(sql) == [(9000,)]
    ((spent, left_out),) = played.sql("SELECT spent, left_out FROM spend")
    assert spent == 9000 and left_out.startswith("1 charge of 1.00 JPY")


def test_a_forecast_is_never_below_what_is_spent(play: Callable[..., Any]) -> None:
    played = play("23", quiet=60)
    assert played.standing()["TrancheOverrunForecast", "y"] == ("ok", 4271.70)
    assert played.sql("SELECT spent, forecast FROM spend") == [(Decimal("4271.70"), Decimal("4271.70"))]


def test_a_bill_that_is_delivered_again_is_replaced_and_not_revised_row_by_row(
    play: Callable[..., Any],
) -> None:
    played = play("18", quiet=60)
    assert played.standing()["TrancheExhausted", "y"] == ("breach", 220.0)
    assert played.sql("SELECT sum(BilledCost), count(*) FROM charges") == [(220, 2)]
    assert played.sql("SELECT sum(BilledCost_sum) FROM billing_1d") == [(220,)]
    assert played.sql("SELECT spent FROM spend ORDER BY day DESC LIMIT 1") == [(220,)]
    for observed, sql in played.sql(
        "SELECT observed, annotations ->> '$.sql' FROM alerts WHERE alertname = 'TrancheExhausted'"
    ):
        assert played.sql(sql) == [(observed,)]
