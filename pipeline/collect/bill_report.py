"""What an import says of a bill: rows, exact sums, deliveries, and each cell that is refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from duckdb import DuckDBPyConnection

from pipeline.collect.bill_columns import lines_of
from pipeline.collect.bill_deliveries import BillDelivery
from pipeline.collect.bill_files import BillFile
from pipeline.collect.bill_reading import expected
from pipeline.contract.money import money_text, total
from pipeline.rollup.quoting import quoted

_AS_THE_HEADER = "as many cells as the first line has, with commas between them ({})"
TOLD = 1000
"""Refused cells that are told one by one; all are counted."""


@dataclass(frozen=True, slots=True)
class BadCell:
    """A cell that is refused; `line` of a CSV file, of others the row, from 1."""

    file: str
    line: int
    column: str
    found: str | None
    expected: str


@dataclass(frozen=True, slots=True)
class BillSum:
    """What a group of charges comes to: all with the same `of` (a category, an invoice, …) and currency."""

    of: str | None
    currency: str
    rows: int
    billed: Decimal
    effective: Decimal | None


@dataclass(frozen=True, slots=True)
class BillReport:
    """`sums`: how they are grouped → groups; `quantities`: unit → sum; `derived`: rows whose cost was worked out."""

    files: Sequence[tuple[str, int]]
    rows: int
    refused_rows: int
    refused_cells: int
    refusals: Sequence[BadCell]
    sums: Mapping[str, Sequence[BillSum]]
    quantities: Sequence[tuple[str | None, Decimal]]
    deliveries: Sequence[BillDelivery] = ()
    derived: int = 0
    ignored: Sequence[str] = ()
    repeated: Sequence[tuple[str, str, int]] = ()
    """Pairs of files and how many rows they have in common: perhaps two exports of the same month."""

    def document(self, sent: bool = False) -> dict[str, Any]:
        """The report for scripts; amounts are text with all digits."""
        return {
            "files": [{"file": name, "rows": rows} for name, rows in self.files],
            "rows": self.rows,
            "accepted": self.rows - self.refused_rows,
            "refused": self.refused_rows,
            "refused_cells": self.refused_cells,
            "refusals": [
                {"file": b.file, "line": b.line, "column": b.column, "found": b.found, "expected": b.expected}
                for b in self.refusals
            ],
            "sums": {
                f"by_{how}": [
                    {**({} if how == "currency" else {how: s.of}), "currency": s.currency, "rows": s.rows,
                     "BilledCost": money_text(s.billed),
                     "EffectiveCost": None if s.effective is None else money_text(s.effective)}
                    for s in groups
                ]
                for how, groups in self.sums.items()
            },
            "quantities": [{"unit": unit, "ConsumedQuantity": money_text(amount)} for unit, amount in self.quantities],
            "deliveries": [
                {"delivery": d.name, "issuer": d.issuer, "export": d.export, "billing_period": f"{d.start:%Y-%m-%d}",
                 "rows": d.rows, "control_total": money_text(d.total)}
                for d in self.deliveries
            ],
            "derived_rows": self.derived,
            "ignored_columns": list(self.ignored),
            "rows_in_two_files": [{"files": [a, b], "rows": n} for a, b, n in self.repeated],
            "sent": sent,
        }  # fmt: skip


GROUPS = {
    "currency": "NULL",
    "category": '"ChargeCategory"',
    "invoice": '"InvoiceId"',
    "issuer": '"ServiceProviderName"',
    "month": """strftime("ChargePeriodStart", '%Y-%m')""",
}
"""How the sums of a report are grouped, and by which column."""


def sums_of(con: DuckDBPyConnection) -> dict[str, list[BillSum]]:
    """The sums of `charges`, which may have rows that are refused: those are left out."""
    names = {name for name, *_ in con.execute("DESCRIBE charges").fetchall()}
    effective = _parts("EffectiveCost") if "EffectiveCost" in names else "NULL, NULL"
    found = {}
    for how, column in GROUPS.items():
        by = "NULL" if how == "invoice" and "InvoiceId" not in names else column
        rows = con.execute(
            f'SELECT {by}::VARCHAR, "BillingCurrency", count(*), {_parts("BilledCost")}, {effective} FROM charges '
            "ANTI JOIN bad USING (file, row) GROUP BY 1, 2 ORDER BY 1, 2"
        ).fetchall()
        found[how] = [
            BillSum(of, currency, n, _sum(whole, rest), None if more[0] is None else _sum(*more))
            for of, currency, n, whole, rest, *more in rows
        ]
    return found


def _sum(whole: int, rest: Decimal) -> Decimal:
    return total((Decimal(whole), rest))


def quantities_of(con: DuckDBPyConnection) -> list[tuple[str | None, Decimal]]:
    """What was consumed, by unit."""
    names = {name for name, *_ in con.execute("DESCRIBE charges").fetchall()}
    if "ConsumedQuantity" not in names:
        return []
    unit = '"ConsumedUnit"' if "ConsumedUnit" in names else "NULL"
    rows = con.execute(
        f"SELECT {unit}::VARCHAR, {_parts('ConsumedQuantity')} FROM charges ANTI JOIN bad USING (file, row) "
        'WHERE "ConsumedQuantity" IS NOT NULL GROUP BY 1 ORDER BY 1'
    ).fetchall()
    return [(of, _sum(whole, rest)) for of, whole, rest in rows]


def _parts(column: str) -> str:
    """Whole units and the rest, for a sum of DECIMALs may overflow."""
    amount = f"{quoted(column)}::DECIMAL(38, 15)"
    return f"sum(trunc({amount})::HUGEINT), sum({amount} - trunc({amount}))"


def refusals(con: DuckDBPyConnection, files: Sequence[BillFile]) -> list[BadCell]:
    """The first `TOLD` refused cells, each with its line; a line that is no row at all has no column."""
    rows = con.execute(
        f"SELECT file, row, name, found, why FROM bad ORDER BY file, row, name LIMIT {TOLD}"
    ).fetchall()
    lines = {
        number: lines_of(files[number], (row for at, row, *_ in rows if at == number))
        for number in {at for at, *_ in rows}
        if files[number].form == "csv"
    }
    torn = con.execute(f"SELECT file, line, found, why FROM torn ORDER BY file, line LIMIT {TOLD}").fetchall()
    cells = [
        (at, lines.get(at, {}).get(row, row), name, text, expected(why)) for at, row, name, text, why in rows
    ]
    cells += [(at, line, "", text, _AS_THE_HEADER.format(why)) for at, line, text, why in torn]
    return [BadCell(files[at].name, *cell) for at, *cell in sorted(cells, key=lambda cell: cell[:3])[:TOLD]]


def in_words(report: BillReport) -> Iterator[str]:
    """The report for people, line by line."""
    yield f"{_rows(report.rows)} in {len(report.files)} file{'' if len(report.files) == 1 else 's'}"
    for how, groups in report.sums.items():
        if how in ("currency", "category", "invoice") and (
            how == "currency" or len(groups) > 1 or groups[0].of
        ):
            for each in groups:
                of = "in all" if how == "currency" else f"{how} {each.of or 'none'}"
                yield f"  {of}: {money_text(each.billed)} {each.currency} in {_rows(each.rows)}"
    for unit, amount in report.quantities:
        yield f"  consumed: {money_text(amount)} {unit or 'without a unit'}"
    if report.derived:
        yield f"  {report.derived:,} rows have no cost of their own: it is their quantity times its rate"
    for first, second, rows in report.repeated:
        yield (
            f"  {rows:,} rows of {second} are also in {first}: where these are two exports of one month, import one after "
            "the other, for the files of one import add up"
        )
    for d in report.deliveries:
        export = f", export {d.export}" if d.export else ""
        yield f"  delivery {d.name}: {d.issuer}{export}, billing period {d.start:%Y-%m}, {_rows(d.rows)}"
    for bad in report.refusals:
        found = "nothing" if bad.found is None else repr(bad.found)
        column = f" {bad.column}:" if bad.column else ""
        yield f"{bad.file}:{bad.line}:{column} found {found}, expected {bad.expected}"
    if report.refused_cells > len(report.refusals):
        yield f"… and {report.refused_cells - len(report.refusals):,} more cells"


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"
