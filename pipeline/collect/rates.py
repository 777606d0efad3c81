"""Bills that have quantities and no cost: each quantity times its contract rate, marked as derived.

A rate file is YAML or JSON, a list of `{sku, unit, price, currency, from}`; `sku` and `from` may be left out.  FOCUS's own
ContractedUnitPrice, where the bill has it, is the rate of its row and needs no file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from duckdb import DuckDBPyConnection
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline.contract.money import money_text, times
from pipeline.errors import BillError
from pipeline.formats.amounts import amount_of
from pipeline.formats.times import read_time

DERIVED = "x_derived_cost"
"""Custom column of a charge whose cost is not the supplier's own: says how it was worked out."""
_QUANTITIES = (("PricingQuantity", "PricingUnit"), ("ConsumedQuantity", "ConsumedUnit"))
_FIELDS = {"sku", "unit", "price", "currency", "from"}


@dataclass(frozen=True, slots=True)
class Rate:
    """The price of a unit of a SKU (None: any) from an instant on (naive UTC)."""

    sku: str | None
    unit: str
    price: Decimal
    currency: str
    since: datetime


def load_rates(path: Path) -> list[Rate]:
    """The rates of a file, the newest and most exact first.  Raises BillError that names the entry."""
    try:
        entries = YAML(typ="safe").load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        raise BillError(f"{path}: cannot be read as YAML ({str(error).splitlines()[0]})") from error
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise BillError(
            f"{path}: expected a list of rates such as {{sku: H100, unit: Hours, price: '7.50', currency: USD}}"
        )
    rates = [_rate(f"{path}: rate {number}", entry) for number, entry in enumerate(entries, 1)]
    return sorted(rates, key=lambda rate: (rate.since, rate.sku is not None), reverse=True)


def _rate(where: str, entry: Mapping[str, Any]) -> Rate:
    if unknown := sorted(set(entry) - _FIELDS):
        raise BillError(f"{where}: found {', '.join(unknown)}; expected {', '.join(sorted(_FIELDS))}")
    price, since = amount_of(entry.get("price")), read_time(str(entry.get("from", "1970-01-01")), "UTC")
    if not isinstance(price, Decimal) or price < 0:
        raise BillError(f"{where}: price: found {entry.get('price')!r}, expected an amount such as '7.50'")
    if not isinstance(since, datetime):
        raise BillError(f"{where}: from: found {entry.get('from')!r}, expected a date such as 2026-11-01")
    for name in ("unit", "currency"):
        if not isinstance(entry.get(name), str):
            raise BillError(f"{where}: {name}: found {entry.get(name)!r}, expected a text")
    sku = entry.get("sku")
    return Rate(None if sku is None else str(sku), entry["unit"], price, entry["currency"], since)


def derive_costs(con: DuckDBPyConnection, present: Sequence[str], rates: Sequence[Rate]) -> int:
    """Give each row of `raw` without BilledCost its quantity times its rate; how many there were.

    `raw` gains the columns BilledCost, BillingCurrency and `DERIVED` where it lacks them.  What has no rate stays without.
    """
    for name in ("BilledCost", "BillingCurrency", DERIVED):
        if name not in present:
            con.execute(f'ALTER TABLE raw ADD COLUMN "{name}" VARCHAR')
    listed = ", ".join(
        f'"{name}"' if name in present else f'NULL AS "{name}"'
        for name in (
            "SkuId",
            "ChargePeriodStart",
            "ContractedUnitPrice",
            "BillingCurrency",
            *(n for p in _QUANTITIES for n in p),
        )
    )
    rows = con.execute(f'SELECT DISTINCT {listed} FROM raw WHERE "BilledCost" IS NULL').fetchall()
    derived = [(*row, *found) for row in rows if (found := _derived(row, rates))]
    if not derived:
        return 0
    names = ("sku", "starts", "own", "currency", "pq", "pu", "cq", "cu", "cost", "billed_in", "words")
    columns = ", ".join(f"unnest(${i}::VARCHAR[]) AS {name}" for i, name in enumerate(names, 1))
    con.execute(
        f"CREATE TABLE derived AS SELECT {columns}", [list(column) for column in zip(*derived, strict=True)]
    )
    keys = zip(("SkuId", "ChargePeriodStart", "ContractedUnitPrice", "BillingCurrency", "PricingQuantity", "PricingUnit",
                "ConsumedQuantity", "ConsumedUnit"), names, strict=False)  # fmt: skip
    same = " AND ".join(
        f'raw."{column}" IS NOT DISTINCT FROM d.{name}' for column, name in keys if column in present
    )
    (count,) = con.execute(
        f'UPDATE raw SET "BilledCost" = d.cost, "BillingCurrency" = d.billed_in, "{DERIVED}" = d.words '
        f'FROM derived d WHERE raw."BilledCost" IS NULL AND {same or "true"}'
    ).fetchall()[0]
    return int(count)


def _derived(row: Sequence[str | None], rates: Sequence[Rate]) -> tuple[str, str, str] | None:
    """(cost, currency, how) of a row without a cost; None where nothing says its price."""
    sku, starts, own, currency, *quantities = row
    for quantity, unit in zip(quantities[::2], quantities[1::2], strict=True):
        amount, price = amount_of(quantity), amount_of(own)
        if not isinstance(amount, Decimal):
            continue
        rate = (
            None if isinstance(price, Decimal) and currency else _rate_of(rates, sku, unit, currency, starts)
        )
        if rate:
            price, currency = rate.price, rate.currency
        if isinstance(price, Decimal) and currency:
            return (
                money_text(times(amount, price)),
                currency,
                f"{money_text(amount)} {unit} x {money_text(price)} {currency}",
            )
    return None


def _rate_of(
    rates: Sequence[Rate], sku: str | None, unit: str | None, currency: str | None, starts: str | None
) -> Rate | None:
    since = read_time(starts or "", "UTC")
    fitting = (
        rate for rate in rates
        if rate.sku in (None, sku) and unit and rate.unit.casefold() == unit.casefold()
        and currency in (None, rate.currency) and isinstance(since, datetime) and rate.since <= since
    )  # fmt: skip
    return next(fitting, None)
