"""A bill's file becomes charges to the last digit, or is refused by file, line and column."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.catalog import load
from pipeline.collect.bill_import import Bill, BillOptions
from pipeline.errors import BillError
from pipeline.stream.decode import Decoder
from pipeline.stream.inspect import inspect

SAMPLE = Path("shared") / "data" / "focus" / "focus_1.0_sample.csv"
CHARGE = load().by_topic("telemetry.billing")


def sums(report: Any, how: str = "currency") -> dict[str | None, str]:
    """What a report says each group comes to; of currencies by their name."""
    rows = report.document()["sums"][f"by_{how}"]
    return {row["currency" if how == "currency" else how]: row["BilledCost"] for row in rows}


def test_the_sample_of_the_focus_foundation_is_read_as_it_stands(read: Any) -> None:
    found = next((up / SAMPLE for up in Path(__file__).parents if (up / SAMPLE).exists()), None)
    if found is None:
        pytest.skip(f"{SAMPLE} is in no folder above; it is others' data and no part of the project")
    report, messages = read(found)
    assert (report.rows, report.refused_rows) == (1000, 0)
    assert sums(report, "issuer") == {
        "AWS": "18.0066386184",
        "Microsoft": "1.97651418586",
        "Oracle": "0.53707392473",
    }
    by_issuer = Counter({d.issuer: 0 for d in report.deliveries})
    for delivery in report.deliveries:
        by_issuer[delivery.issuer] += delivery.rows
    assert by_issuer == {"AWS": 942, "Microsoft": 51, "Oracle": 7}
    assert sum(rows for *_, rows in messages) == 1000


def test_what_is_billed_counts_whatever_it_can_be_attributed_to(read: Any, bills: Any, taker: Any) -> None:
    report, messages = read(bills.input("27-focus_1.2.csv"))
    assert sums(report) == {"USD": "104345.30"}
    assert report.document()["sums"]["by_currency"][0]["EffectiveCost"] == "4408.50"
    taker.take(messages)
    assert taker.ask("SELECT count(*), sum(BilledCost), sum(EffectiveCost) FROM charges") == [
        (7, Decimal("104345.30"), Decimal("4408.5"))
    ]
    assert taker.ask("SELECT sum(BilledCost_sum) FROM billing_1d WHERE ChargeCategory <> 'Tax'") == [
        (Decimal("103533.68"),)
    ]


def test_a_month_to_date_export_every_day_counts_once_and_only_when_all_its_parts_are_there(
    read: Any, bills: Any, taker: Any
) -> None:
    """Two identical rows of a delivery are two charges, the correction is one, nothing of an older delivery stays."""
    days = [("2026-11-03", ["part-0"]), ("2026-11-04", ["part-0", "part-1"]), ("2026-12-05", ["part-0"])]
    billed = "(SELECT sum(BilledCost) FROM charges), (SELECT sum(BilledCost_sum) FROM billing_1d)"
    spent = f"SELECT {billed}, sum(billed_quantity) FROM gpu_hours"
    expected = {
        "2026-11-03": ("11543.40", 1539.12),
        "2026-11-04": ("25630.20", 3417.36),
        "2026-12-05": ("25203.03", 3360.404),
    }
    before: tuple[Any, ...] = (None, None, None)
    for number, (day, parts) in enumerate(days):
        files = [bills.input(f"28-export_{day}_{part}.csv") for part in parts]
        _, messages = read(*files, sent=datetime(2026, 12, 6, 6 + number, tzinfo=UTC))
        taker.take(messages[:-1])
        assert taker.ask(spent) == [before], "without what closes it a delivery counts nothing"
        taker.take(messages[-1:])
        cost, hours = expected[day]
        before = (Decimal(cost), Decimal(cost), pytest.approx(hours))
        assert taker.ask(spent) == [before]
    changes = taker.ask("SELECT change FROM bills WHERE state = 'counts'")
    assert changes == [(Decimal("-427.17"),)]


def test_the_same_file_again_changes_nothing_not_even_an_older_one(read: Any, bills: Any, taker: Any) -> None:
    first, second = (bills.input(f"28-export_{day}_part-0.csv") for day in ("2026-11-03", "2026-12-05"))
    for file, hour in ((first, 6), (second, 7), (first, 8), (second, 9)):
        taker.take(read(file, sent=datetime(2026, 12, 6, hour, tzinfo=UTC))[1])
    assert taker.ask("SELECT sum(BilledCost), count(*) FROM charges") == [(Decimal("25203.03"), 7)]
    assert taker.ask("SELECT count(*) FROM billing") == [(10,)]
    assert taker.fates() == {"in": 24, "aggregated": 12, "duplicate identity_seen": 12}


def test_two_imports_of_one_file_that_overlap_leave_each_row_once(read: Any, bills: Any, taker: Any) -> None:
    file = bills.input("28-export_2026-12-05_part-0.csv")
    late, early = (read(file, sent=datetime(2026, 12, 6, hour, tzinfo=UTC))[1] for hour in (7, 6))
    taker.take([late[0], early[0], early[-1], late[-1]])
    assert taker.ask("SELECT sum(BilledCost), count(*) FROM charges") == [(Decimal("25203.03"), 7)]


def test_what_an_option_says_holds_for_all_rows_and_an_issue_date_makes_a_delivery_its_own(
    read: Any, bills: Any
) -> None:
    text = bills.csv({}, {"ProviderName": "Other"}, {"BillingAccountId": "a"}, more=["BillingAccountId"])
    report, _ = read(text)
    assert [(d.issuer, d.export, d.rows) for d in report.deliveries] == [
        ("Halcyon", "a", 1),
        ("Halcyon", None, 1),
        ("Other", None, 1),
    ]
    report, _ = read(text, issuer="H", export="all")
    (one,) = report.deliveries
    assert (one.issuer, one.export, one.rows) == ("H", "all", 3)
    report, _ = read(text, issuer="H", export="all", issued=bills.now)
    assert report.deliveries[0].name != one.name


def test_googles_credits_are_part_of_what_is_paid(read: Any, bills: Any, taker: Any) -> None:
    report, messages = read(bills.input("30-bigquery_rows.jsonl"))
    assert sums(report) == {"EUR": "1290.01"} and sums(report, "invoice") == {"202609": "1290.01"}
    assert sums(report, "month") == {"2026-08": "570.00", "2026-09": "720.01"}
    assert [f"{d.start:%Y-%m}" for d in report.deliveries] == ["2026-09"]
    taker.take(messages)
    assert taker.ask("SELECT sum(BilledCost) FROM charges") == [(Decimal("1290.01"),)]
    assert taker.ask("SELECT sum(billed_quantity)::INTEGER FROM gpu_hours") == [(200,)]


def test_googles_export_is_read_from_parquet_and_keeps_digits_that_a_double_would_lose(
    read: Any, bills: Any, tmp_path: Path
) -> None:
    source, target = bills.input("30-bigquery_rows.jsonl"), tmp_path / "export.parquet"
    duckdb.sql(f"COPY (FROM read_json('{source}')) TO '{target}'")
    assert sums(read(target)[0]) == {"EUR": "1290.01"}
    rows = [json.loads(line) for line in source.read_text().splitlines()]
    rows[0] |= {"cost": "COST", "credits": [{"amount": "AMOUNT"}]}
    text = (
        json.dumps(rows[0])
        .replace('"COST"', "1234567890123.000000000000001")
        .replace('"AMOUNT"', "-0.000000000000001")
    )
    (tmp_path / "long.json").write_text(text)
    assert sums(read(tmp_path / "long.json")[0]) == {"EUR": "1234567890123.00"}
    for cost in ("0.0010240000000000002", "1e-400"):
        (tmp_path / "noise.json").write_text(
            json.dumps(rows[0]).replace('"COST"', cost).replace('"AMOUNT"', "0")
        )
        report, _ = read(tmp_path / "noise.json")
        assert [(b.column, b.found) for b in report.refusals] == [
            ("BilledCost", cost),
            ("EffectiveCost", cost),
        ]


RATES = """
- {sku: H100, unit: hours, price: "7.50", currency: USD}
- {sku: H100, unit: Hours, price: "7.00", currency: USD, from: 2026-11-02}
- {unit: Hours, price: 1, currency: USD}
"""


def test_a_bill_of_quantities_costs_what_the_contract_says_and_tells_that_it_is_derived(
    read: Any, tmp_path: Path, bills: Any
) -> None:
    (tmp_path / "rates.yaml").write_text(RATES)
    head = (
        "SkuId,ConsumedQuantity,ConsumedUnit,ChargeCategory,ChargePeriodStart,ChargePeriodEnd,ProviderName\n"
    )
    text = head + (
        "H100,569.56,Hours,Usage,2026-11-01,2026-11-02,CoreWeave\nH100,2,Hours,Usage,2026-11-02,2026-11-03,CoreWeave\n"
        "A40,3,Hours,Usage,2026-11-01,2026-11-02,CoreWeave\n"
    )
    report, messages = read(text, rates=tmp_path / "rates.yaml")
    assert sums(report) == {"USD": "4288.70"} and report.derived == 3
    assert [row["x_derived_cost"] for row in bills.charges(messages)] == [
        "569.56 Hours x 7.50 USD", "2.00 Hours x 7.00 USD", "3.00 Hours x 1.00 USD",
    ]  # fmt: skip
    with pytest.raises(BillError, match=r"found quantities and no BilledCost.*--rates"):
        read(text)
    report, _ = read(text + "A40,3,GB,Usage,2026-11-01,2026-11-02,CoreWeave\n", rates=tmp_path / "rates.yaml")
    assert [(b.line, b.column) for b in report.refusals] == [(5, "BilledCost"), (5, "BillingCurrency")]


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ("- {unit: Hours, price: '7,50', currency: USD}", "rate 1: price: found '7,50'"),
        (
            "- {unit: Hours, price: 7, currency: USD, until: 2027}",
            "rate 1: found until; expected currency, from",
        ),
        ("- {price: 7, currency: USD}", "rate 1: unit: found None"),
        ("- {unit: h, price: 7, currency: USD, from: 1.11.2026}", "rate 1: from: found '1.11.2026'"),
        ("unit: h", "expected a list of rates"),
        ("[", "cannot be read as YAML"),
    ],
)
def test_a_wrong_rate_is_refused_by_its_number(
    read: Any, tmp_path: Path, bills: Any, entry: str, told: str
) -> None:
    (tmp_path / "rates.yaml").write_text(entry)
    with pytest.raises(BillError) as refused:
        read(bills.csv({}), rates=tmp_path / "rates.yaml")
    assert told in str(refused.value)


# --- forms of files --------------------------------------------------------------------------------------------

CELLS = {
    "EffectiveCost": "-8E-7",
    "ListCost": "NULL",
    "SkuId": "(null)",
    "ChargePeriodStart": "2026-11-01 00:00:00",
    "Tags": '{"a":\n"b,"}',
}


@pytest.mark.parametrize("form", ["plain", "mark", "gzip", "crlf", "capitals", "parquet", "typed"])
def test_every_form_of_a_bill_says_the_same(read: Any, bills: Any, tmp_path: Path, form: str) -> None:
    text, path = (
        bills.csv({}, CELLS, {}, more=[name for name in CELLS if name != "ChargePeriodStart"]),
        tmp_path / f"bill.{form}",
    )
    plain = bills.charges(read(text)[1])
    if form in ("parquet", "typed"):
        kept = "* REPLACE (BilledCost::DECIMAL(20, 9) AS BilledCost, ChargePeriodStart::TIMESTAMP AS ChargePeriodStart, "
        kept += "TRY_CAST(EffectiveCost AS DOUBLE) AS EffectiveCost, nullif(Tags, '')::JSON AS Tags)"
        source = tmp_path / "source.csv"
        source.write_text(text)
        rows = f"SELECT {kept if form == 'typed' else '*'} FROM read_csv('{source}', all_varchar = true)"
        duckdb.sql(f"COPY ({rows}) TO '{path}' (FORMAT parquet)")
    else:
        data = text.replace("BilledCost", "billedCOST").encode() if form == "capitals" else text.encode()
        data = data.replace(b"Z\n", b"Z\r\n") if form == "crlf" else data
        path.write_bytes(gzip.compress(data) if form == "gzip" else b"\xef\xbb\xbf" * (form == "mark") + data)
    charges = bills.charges(read(path)[1])
    amounts = ("BilledCost", "EffectiveCost")
    assert [[row[n] and Decimal(row[n]) for n in amounts] for row in charges] == [
        [Decimal("1.5"), None], [Decimal("1.5"), Decimal("-8E-7")], [Decimal("1.5"), None],
    ]  # fmt: skip
    rest = [{k: v for k, v in row.items() if k not in (*amounts, "DeliveryId", "Tags")} for row in charges]
    assert rest == [
        {k: v for k, v in row.items() if k not in (*amounts, "DeliveryId", "Tags")} for row in plain
    ]
    assert json.loads(charges[1]["Tags"]) == {"a": "b,"}
    assert charges[1]["ChargePeriodStart"] == "2026-11-01T00:00:00Z" and charges[1]["SkuId"] is None


@pytest.mark.parametrize(
    ("cells", "column", "found", "expected"),
    [
        ({"BilledCost": "1,50"}, "BilledCost", "1,50", "a number with a decimal point"),
        ({"BilledCost": "1.234,50"}, "BilledCost", "1.234,50", "a number with a decimal point"),
        ({"BilledCost": "$5"}, "BilledCost", "$5", "a number"),
        ({"BilledCost": "0.0000000000000001"}, "BilledCost", "0.0000000000000001", "at most 15 decimals"),
        ({"BilledCost": "1e22"}, "BilledCost", "1e22", "at most 22 digits"),
        ({"BilledCost": "null"}, "BilledCost", None, "a value"),
        ({"ListCost": "12,5"}, "ListCost", "12,5", "a number"),
        ({"ChargePeriodStart": "11/02/2026"}, "ChargePeriodStart", "11/02/2026", "a time such as"),
        ({"ChargePeriodEnd": "02.11.2026"}, "ChargePeriodEnd", "02.11.2026", "a time such as"),
        ({"ChargePeriodStart": "2026-02-30T00:00:00Z"}, "ChargePeriodStart", "2026-02-30T00:00:00Z", "a time such as"),
        ({"ChargeCategory": "usage"}, "ChargeCategory", "usage", "one of Usage"),
        ({"SkuId": "s" * 257}, "SkuId", "s" * 200, "at most 256 characters"),
        ({"ContractApplied": "none"}, "ContractApplied", "none", "JSON"),
        ({"ContractApplied": '{"Elements": [{"ContractCommitmentAppliedCost": "1,5"}]}'}, "ContractApplied",
         '{"Elements": [{"ContractCommitmentAppliedCost": "1,5"}]}', "ContractCommitmentAppliedCost: a number"),
    ],
)  # fmt: skip
def test_a_cell_that_cannot_be_kept_exactly_is_refused_by_file_line_and_column(
    read: Any, bills: Any, cells: dict[str, str], column: str, found: str | None, expected: str
) -> None:
    """Line 5, for the cell above has a line break in it; and nothing of the bill is sent."""
    more = ["ListCost", "SkuId", "ContractApplied", "Tags"]
    report, messages = read(bills.csv({}, {"Tags": '{"a":\n"b"}'}, cells, {}, more=more))
    (bad,) = report.refusals
    assert (Path(bad.file).name, bad.line, bad.column, bad.found) == ("bill-0.csv", 5, column, found)
    assert expected in bad.expected
    assert (report.rows, report.refused_rows, messages) == (4, 1, [])
    assert sums(report) == {"USD": "4.50"}


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("Halcyon,Usage,USD", "Found: 3"),
        ("Halcyon,Usage,USD,2026-11-01,2026-11-02,4271,70", "Found: 7"),
        ('Halcyon,Usage,USD,2026-11-01,2026-11-02,"1', "unterminated quote"),
    ],
)
def test_a_line_that_is_no_row_is_refused_with_what_stands_there(
    read: Any, bills: Any, line: str, told: str
) -> None:
    report, messages = read(bills.csv({}, {}) + line + "\n")
    (bad,) = report.refusals
    assert (bad.line, bad.column, bad.found) == (4, "", line) and told in bad.expected
    assert (report.rows, report.refused_rows, messages) == (3, 1, [])


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "found an empty file"),
        (b"BilledCost;BillingCurrency\n1;USD\n", "with commas between them"),
        (b"a,b\n1,2\n", "found the columns a, b; expected those of FOCUS"),
        (b"BilledCost,billedcost\n1,2\n", "bill:1:2: the column 'billedcost' comes twice"),
        (b"BilledCost,BillingCurrency\n", "found no row"),
        (b"\xff\xfeB\x00", "found UTF-16"),
        (b"PK\x03\x04zip", "found a zip archive; unpack it"),
        (b"PAR1 and nothing else", "cannot be read as Parquet"),
        (gzip.compress(b"BilledCost,BillingCurrency\n" + bytes(range(256)) * 200)[:-30], "cannot be read"),
        (b"Bill\xe9dCost,BillingCurrency\n1,USD\n", "expected CSV in UTF-8"),
        (b'{"a": 1}\n', "without cost or usage_start_time"),
    ],
)
def test_a_file_that_is_no_bill_is_refused_with_what_it_is(
    read: Any, tmp_path: Path, data: bytes, told: str
) -> None:
    (tmp_path / "bill").write_bytes(data)
    with pytest.raises(BillError) as refused:
        read(tmp_path / "bill")
    assert told in str(refused.value) and str(tmp_path / "bill") in str(refused.value)


@pytest.mark.parametrize(
    ("kind", "value"),
    [("BOOLEAN", "true"), ("DOUBLE[]", "[1.0]"), ("STRUCT(a INTEGER)", "{'a': 1}"), ("BLOB", "'x'::BLOB")],
)
def test_a_parquet_column_of_another_type_is_refused(
    read: Any, tmp_path: Path, kind: str, value: str
) -> None:
    path = tmp_path / "bill.parquet"
    duckdb.sql(f"COPY (SELECT {value} AS BilledCost, 'USD' AS BillingCurrency) TO '{path}'")
    with pytest.raises(
        BillError,
        match=r"bill\.parquet: column BilledCost: found the type .*expected text, a number or a time",
    ):
        read(path)


def test_a_directory_is_one_bill_and_what_is_in_two_of_its_files_is_told(
    read: Any, bills: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "november" / "run=1"
    folder.mkdir(parents=True)
    (folder / "b.csv").write_text(bills.csv({"BilledCost": "2"}, {"BilledCost": "3"}, {"BilledCost": "3"}))
    (folder / "a.csv.gz").write_bytes(gzip.compress(bills.csv({"BilledCost": "3"}).encode()))
    for name in ("_SUCCESS", ".part.csv", "manifest.txt"):
        (folder / name).write_text("nothing")
    report, messages = read(tmp_path / "november")
    assert [row["BilledCost"] for row in bills.charges(messages)] == ["3", "2", "3", "3"]
    assert [(Path(a).name, Path(b).name, n) for a, b, n in report.repeated] == [("a.csv.gz", "b.csv", 1)]
    with pytest.raises(BillError, match="named twice"):
        read(folder / "b.csv", folder)
    with pytest.raises(BillError, match="found no file of a bill"):
        (tmp_path / "empty").mkdir()
        read(tmp_path / "empty")


def test_a_large_bill_becomes_messages_that_a_pipeline_takes_and_its_rows_stay_in_order(
    read: Any, bills: Any
) -> None:
    rows = 45_000
    text = bills.csv(*({"BilledCost": str(n)} for n in range(rows)))
    report, messages = read(text)
    assert [row["BilledCost"] for row in bills.charges(messages)] == [str(n) for n in range(rows)]
    assert max(len(value) for _, _, value, _ in messages) < 2**20
    ids = [json.loads(value)["id"] for _, _, value, _ in messages]
    assert len(set(ids)) == len(ids) and report.deliveries[0].total == sum(range(rows))


def test_tags_become_an_object_which_is_decoded_with_its_whole_batch(
    read: Any, bills: Any, taker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not plain stays the text that it was: a number would be written anew, of a repeated key one would go."""
    plain = ['{"team": "x", "cost-centre": null, "live": true}', '{"who":"Zoë"}', "{}", ""]
    other = ['{"n": 1.50}', '{"a": "1", "a": "2"}', '{"a": {"b": "c"}}', '{"path": "C:\\\\x"}']
    rows = [{"Tags": text, "BilledCost": str(n)} for n, text in enumerate((*plain, *other))]
    for number, few in enumerate((rows[:4], rows[4:])):
        messages = read(bills.csv(*few, more=["Tags"]), issuer=f"issuer {number}")[1]
        sent = [charge.get("Tags") for charge in bills.charges(messages)]
        assert sent == ([*map(json.loads, plain[:3]), None] if number == 0 else other)
        with monkeypatch.context() as patched:
            if number == 0:
                patched.setattr(Decoder, "_inspect", None)
            taker.take(messages)
    kept = [text for (text,) in taker.ask("SELECT Tags FROM charges ORDER BY BilledCost")]
    spaceless = [
        json.dumps(json.loads(t), separators=(",", ":"), ensure_ascii=False) if t else None for t in plain
    ]
    assert kept == [*spaceless, '{"n":1.5}', '{"a":"1"}', '{"a":{"b":"c"}}', '{"path":"C:\\\\x"}']


def test_a_row_that_no_message_can_hold_is_refused_by_its_line(read: Any, bills: Any) -> None:
    with pytest.raises(BillError, match=r"bill-0\.csv:3: found a row of more than"):
        read(bills.csv({}, {"Tags": json.dumps({"a": "b" * 500_000})}, more=["Tags"]))


TEXTS = st.sampled_from(["", "NULL", "a", 'é\\"\u2028', "x" * 300])
AMOUNTS = st.one_of(
    st.decimals(-(10**22) + 1, 10**22 - 1, places=15).map(str),
    st.sampled_from(["1e3", " 5", "5.", ".5", "+7", "-0", "1_0", "nan", "٣"]),
)
TIMES = st.sampled_from(
    [
        "2026-11-01",
        "2026-11-01T00:00Z",
        "2026-11-01t00:00:00+01",
        "20261101T000000Z",
        "2026-11-31",
        "now",
        "2026-11-01T24:00:00Z",
    ]
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(
        st.tuples(TEXTS, AMOUNTS, AMOUNTS, TIMES, st.sampled_from(["Usage", "Tax", "usage", ""])),
        min_size=1,
        max_size=6,
    )
)
def test_what_an_import_takes_the_pipeline_takes_with_the_same_amounts_and_what_it_refuses_costs_nothing(
    bills: Any, tmp_path: Path, rows: list[tuple[str, ...]]
) -> None:
    """The law against the pipeline's own specification: a row is refused for what `inspect` refuses or sets aside of it."""
    names = ("SkuId", "BilledCost", "ListCost", "ChargePeriodStart", "ChargeCategory")
    path = tmp_path / "law.csv"
    path.write_text(
        bills.csv(*(dict(zip(names, row, strict=True)) for row in rows), more=["SkuId", "ListCost"]), "utf-8"
    )
    with Bill([str(path)], load(), BillOptions()) as bill:
        report, messages = bill.report, list(bill.messages(bills.now))
    given_rows = list(csv.DictReader(io.StringIO(path.read_text("utf-8"))))
    bad = {b.line for b in report.refusals}
    for line, row in enumerate(given_rows, 2):
        (outcome,) = outcomes({k: v for k, v in row.items() if v is not None})
        assert (outcome.fate == "aggregated" and not outcome.aside) == (line not in bad), (row, outcome)
    if bad:
        assert messages == []
        return
    for sent, row in zip(bills.charges(messages), given_rows, strict=True):
        (theirs,), (ours,) = outcomes(sent), outcomes(row)
        assert {k: v for k, v in theirs.row.items() if k != "DeliveryId"} == {
            k: v for k, v in ours.row.items() if k != "DeliveryId"
        }


def outcomes(data: dict[str, Any]) -> list[Any]:
    event = {
        "specversion": "1.0",
        "id": "1",
        "source": "/s",
        "type": CHARGE.type,
        "time": "2026-12-06T00:00:00Z",
        "data": data,
    }
    headers = [("content-type", b"application/cloudevents+json")]
    return list(inspect(CHARGE, json.dumps(event).encode(), headers, datetime(2026, 12, 6, 12), 2**20))
