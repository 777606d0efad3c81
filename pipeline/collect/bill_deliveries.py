"""The deliveries that a bill's rows make: one for each issuer, export and billing period, and the messages they become.

Everything here follows from the rows alone: the same file again gives the same names, so that Kafka's readers see the same
events.  Row *n* of a delivery is sample `n` of its messages, so two rows that are the same are two charges.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Set
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from itertools import accumulate, groupby
from urllib.parse import quote

from duckdb import DuckDBPyConnection

from pipeline.catalog import EventType
from pipeline.collect.bill_reading import columns_of_bill
from pipeline.contract.money import total
from pipeline.formats.inside import plain_object_sql
from pipeline.rollup.quoting import literal, quoted

FORM = 2
"""Part of a delivery's name, for it says how rows become messages: to be counted up when that changes."""
MESSAGE_BYTES = 400_000
"""Bytes of rows in a message: with the envelope far below what a pipeline takes (`max_message_bytes`)."""
ROWS_AT_ONCE = 20_000
"""Rows that are made into messages in one statement."""


class TooLong(Exception):
    """A row has more bytes than a message may have: (number of the file, row)."""


@dataclass(frozen=True, slots=True)
class BillDelivery:
    """A snapshot of a bill; `total` is the control total, periods naive UTC.  `place`: its number among those of the import."""

    place: int
    name: str
    issuer: str
    export: str | None
    start: datetime
    end: datetime
    rows: int
    total: Decimal

    @property
    def source(self) -> str:
        """The CloudEvents source of its charges and of what closes it."""
        named = "/".join(quote(part, safe="") for part in (self.issuer, self.export or "-"))
        return f"/gigawatch/import/{named[:900]}/{self.start:%Y-%m}"


def make_deliveries(
    con: DuckDBPyConnection, charge: EventType, issuer: str | None, export: str | None, issued: str
) -> list[BillDelivery]:
    """Make `placed(place, n, cell)` of `charges`, each row as JSON, and the deliveries they are of.

    `issuer` and `export` are those of all rows where they are given.  `issued` is part of the names: it tells apart two
    deliveries of the same content.
    """
    starts, ends = _period(con)
    con.execute(
        f"CREATE TABLE keyed AS SELECT file, row, {_text(issuer, quoted('ServiceProviderName'))} AS issuer, "
        f'{_text(export, "account")} AS export, {starts} AS starts, {ends} AS ends, "BilledCost"::DECIMAL(38, 15) AS cost '
        "FROM charges"
    )
    con.execute(
        "CREATE TABLE snapshots AS SELECT row_number() OVER (ORDER BY starts, issuer, export) AS place, issuer, export, "
        "starts, max(ends) AS ends, count(*) AS rows, sum(trunc(cost)::HUGEINT) AS whole, sum(cost - trunc(cost)) AS rest "
        "FROM keyed GROUP BY issuer, export, starts"
    )
    con.execute(
        "CREATE TABLE places AS SELECT file, row, place, row_number() OVER (PARTITION BY place ORDER BY file, row) - 1 AS n "
        "FROM keyed k JOIN snapshots s ON k.issuer = s.issuer AND k.export IS NOT DISTINCT FROM s.export "
        "AND k.starts = s.starts"
    )
    con.execute(
        f"CREATE TABLE placed AS SELECT place, n, {_cell(con, charge)} AS cell FROM charges JOIN places USING (file, row)"
    )
    long = con.execute(
        f"SELECT file, row FROM places JOIN placed USING (place, n) WHERE strlen(cell) > {MESSAGE_BYTES} ORDER BY ALL"
    ).fetchall()
    for table in ("keyed", "places"):
        con.execute(f"DROP TABLE {table}")
    if long:
        raise TooLong(*long[0])
    digest = "sum(md5_number_lower(n || cell))::VARCHAR || ' ' || sum(md5_number_upper(n || cell))::VARCHAR"
    rows = con.execute(
        "SELECT place, issuer, export, starts, ends, rows, whole, rest, digest FROM snapshots "
        f"JOIN (SELECT place, {digest} AS digest FROM placed GROUP BY place) USING (place) ORDER BY place"
    ).fetchall()
    return [_delivery(issued, *row) for row in rows]


def _period(con: DuckDBPyConnection) -> tuple[str, str]:
    """SQL for a row's billing period: that of the charge period's month, where the bill does not say."""
    names = {name for name, *_ in con.execute("DESCRIBE charges").fetchall()}
    starts = """date_trunc('month', "ChargePeriodStart")"""
    ends = f"{starts} + INTERVAL 1 MONTH"
    return (
        f'coalesce("BillingPeriodStart", {starts})' if "BillingPeriodStart" in names else starts,
        f'coalesce("BillingPeriodEnd", {ends})' if "BillingPeriodEnd" in names else ends,
    )


def _text(given: str | None, found: str) -> str:
    return found if given is None else literal(given)


def _cell(con: DuckDBPyConnection, charge: EventType) -> str:
    """SQL for a row of `charges` as a JSON object, with the columns that any row has."""
    names = [name for name, *_ in con.execute("DESCRIBE charges").fetchall()]
    times = {column.name for column in charge.fields if column.kind == "time"}
    wanted = [c.name for c in columns_of_bill(charge) if c.name in names]
    wanted += [name for name in names if name.startswith("x_")]
    objects = {column.name for column in charge.fields if column.kind == "json"}
    fields = [f"{quoted(name)} := {_said(name, times, objects)}" for name in wanted]
    return f"to_json(struct_pack({', '.join(fields)}))::VARCHAR"


def _said(name: str, times: Set[str], objects: Set[str]) -> str:
    """SQL for what a charge says under a name."""
    if name in times:
        return _rfc3339(quoted(name))
    if name in objects:  # a text in a text has escapes, with which a whole message is decoded one by one
        plain = plain_object_sql(quoted(name))
        return f"CASE WHEN {plain} THEN {quoted(name)}::JSON ELSE to_json({quoted(name)}) END"
    return quoted(name)


def _rfc3339(time: str) -> str:
    return f"replace(strftime({time}, '%Y-%m-%dT%H:%M:%S.%fZ'), '.000000Z', 'Z')"


def _delivery(
    issued: str, place: int, issuer: str, export: str | None, start: datetime, end: datetime, rows: int, whole: int,
    rest: Decimal, digest: str,
) -> BillDelivery:  # fmt: skip
    said = json.dumps(
        [FORM, MESSAGE_BYTES, ROWS_AT_ONCE, issued, issuer, export, start.isoformat(), rows, digest]
    )
    name = f"{start:%Y-%m}-{hashlib.sha256(said.encode()).hexdigest()[:24]}"
    return BillDelivery(place, name, issuer, export, start, end, rows, total((Decimal(whole), rest)))


def messages(
    con: DuckDBPyConnection, charge: EventType, delivery: BillDelivery, time: datetime
) -> Iterator[tuple[bytes, int]]:
    """The charge events of a delivery, each with its number of rows; `time`: when the delivery was issued (UTC)."""
    named = f'{{"{charge.delivery}":{json.dumps(delivery.name)},'
    number = 0
    for low in range(0, delivery.rows, ROWS_AT_ONCE):
        # joined here: to sort within an aggregate takes DuckDB five times as long as all of this
        rows = con.execute(
            "SELECT cell[2:], strlen(cell) FROM placed WHERE place = ? AND n >= ? AND n < ? ORDER BY n",
            [delivery.place, low, low + ROWS_AT_ONCE],
        ).fetchall()
        upto = accumulate(size for _, size in rows)
        for _, chunk in groupby(zip(rows, upto, strict=True), lambda each: each[1] // MESSAGE_BYTES):
            cells = [cell for (cell, _), _ in chunk]
            samples = named + f",{named}".join(cells)
            yield _event(delivery, charge.type, f"{delivery.name}/{number}", time, f"[{samples}]"), len(cells)
            number += 1


def closing(closes: EventType, delivery: BillDelivery, time: datetime) -> bytes:
    """The event that closes a delivery."""
    data = {
        "InvoiceIssuerName": delivery.issuer,
        "ExportName": delivery.export,
        "DeliveryId": delivery.name,
        "BillingPeriodStart": f"{delivery.start:%Y-%m-%dT%H:%M:%SZ}",
        "BillingPeriodEnd": f"{delivery.end:%Y-%m-%dT%H:%M:%SZ}",
        "RowCount": delivery.rows,
        "ControlTotal": format(delivery.total, "f"),
    }
    return _event(delivery, closes.type, delivery.name, time, json.dumps(data, ensure_ascii=False))


def _event(delivery: BillDelivery, kind: str, ident: str, time: datetime, data: str) -> bytes:
    envelope = {
        "specversion": "1.0", "id": ident, "source": delivery.source, "type": kind,
        "time": time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "datacontenttype": "application/json",
    }  # fmt: skip
    return f'{json.dumps(envelope)[:-1]}, "data": {data}}}'.encode()
