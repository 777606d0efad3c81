"""Google's billing export (standard or detailed, from BigQuery) as FOCUS columns of text.

What is paid for a row is its `cost` and all of its `credits`, which are negative; the invoice is that of `invoice.month`,
whatever the day of the usage.  (Google Cloud: "Understand the Cloud Billing data tables in BigQuery".)
"""

from __future__ import annotations

import json

from duckdb import DuckDBPyConnection
from duckdb import Error as DuckDBError

from pipeline.collect.bill_columns import ACCOUNT
from pipeline.collect.bill_files import BillFile
from pipeline.collect.bill_reading import make_said
from pipeline.errors import BillError
from pipeline.formats.amounts import LOSSY_NUMBER
from pipeline.rollup.quoting import literal, quoted

ISSUER = "Google Cloud"
_MONTH = "strptime(j ->> '$.invoice.month', '%Y%m')"
_TEXTS = {
    "ServiceProviderName": f"'{ISSUER}'",
    "InvoiceIssuerName": f"'{ISSUER}'",
    ACCOUNT: "j ->> '$.billing_account_id'",
    "RegionId": "coalesce(j ->> '$.location.region', nullif(j ->> '$.location.location', 'global'))",
    "SkuId": "j ->> '$.sku.id'",
    "ResourceId": "coalesce(j ->> '$.resource.global_name', j ->> '$.resource.name')",
    "ChargeCategory": "CASE j ->> '$.cost_type' WHEN 'regular' THEN 'Usage' WHEN 'tax' THEN 'Tax' "
    "WHEN 'adjustment' THEN 'Adjustment' WHEN 'rounding_error' THEN 'Adjustment' ELSE j ->> '$.cost_type' END",
    "BillingCurrency": "j ->> '$.currency'",
    "InvoiceId": "j ->> '$.invoice.month'",
    "BillingPeriodStart": f"strftime({_MONTH}, '%Y-%m-%d')",
    "BillingPeriodEnd": f"strftime({_MONTH} + INTERVAL 1 MONTH, '%Y-%m-%d')",
    "ChargePeriodStart": "j ->> '$.usage_start_time'",
    "ChargePeriodEnd": "j ->> '$.usage_end_time'",
    "ListCost": "j ->> '$.cost_at_list'",
    "ConsumedQuantity": "coalesce(j ->> '$.usage.amount', j ->> '$.usage.amount_in_pricing_units')",
    "ConsumedUnit": "if(j ->> '$.usage.amount' IS NULL, j ->> '$.usage.pricing_unit', j ->> '$.usage.unit')",
    "PricingQuantity": "j ->> '$.usage.amount_in_pricing_units'",
    "PricingUnit": "j ->> '$.usage.pricing_unit'",
}
_LOSSY = f"regexp_matches(j::VARCHAR, '{LOSSY_NUMBER}')"
TAKEN = (*_TEXTS, "BilledCost", "EffectiveCost")


def is_google(con: DuckDBPyConnection, file: BillFile) -> bool:
    """Whether a Parquet file has the columns of Google's export; every JSON file is taken for one."""
    if file.form != "parquet":
        return file.form == "json"
    try:
        names = {
            name
            for name, *_ in con.execute(f"DESCRIBE FROM read_parquet({literal(str(file.path))})").fetchall()
        }
    except DuckDBError as error:
        raise BillError(f"{file.name}: cannot be read as Parquet ({str(error).splitlines()[0]})") from error
    return {"cost", "credits", "usage_start_time"} <= names


def google_select(con: DuckDBPyConnection, file: BillFile) -> str:
    """SELECT of `row` and the columns of `TAKEN` as text.  Raises BillError for JSON that is no such export.

    An amount that cannot be kept stays as it is written, so that its cell is refused as those of other bills are.
    """
    con.execute(f"CREATE OR REPLACE TEMP TABLE google AS {_objects(file)}")
    odd = con.execute(
        "SELECT count(*) FROM google WHERE j ->> '$.cost' IS NULL OR j ->> '$.usage_start_time' IS NULL"
    )
    if (count := odd.fetchall()[0][0]) > 0:
        raise BillError(
            f"{file.name}: found {count:,} objects without cost or usage_start_time; expected rows of Google's billing export"
        )
    _make_parts(con)
    texts = [
        text for (text,) in con.execute("SELECT DISTINCT text FROM parts WHERE text IS NOT NULL").fetchall()
    ]
    con.execute("DROP TABLE IF EXISTS google_amounts")
    make_said(con, "google_amounts", texts)
    paid = (
        "SELECT row, coalesce(any_value(text) FILTER (why IS NOT NULL), sum(value::DECIMAL(38, 15))::VARCHAR) AS paid "
        "FROM parts LEFT JOIN google_amounts USING (text) GROUP BY row"
    )
    listed = ", ".join(f"{text} AS {quoted(name)}" for name, text in _TEXTS.items())
    return f'SELECT row, {listed}, paid AS "BilledCost", paid AS "EffectiveCost" FROM google JOIN ({paid}) USING (row)'


def _make_parts(con: DuckDBPyConnection) -> None:
    """Make `parts(row, text)`: cost and credits of each row.

    DuckDB writes a number of JSON anew from a DOUBLE: rows with a number that it may change are read by Python, as text.
    """
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE parts AS SELECT row, j ->> '$.cost' AS text FROM google WHERE NOT {_LOSSY} UNION ALL "
        "SELECT row, unnest(list_transform(TRY_CAST(j -> '$.credits' AS JSON[]), lambda c: c ->> '$.amount')) "
        f"FROM google WHERE NOT {_LOSSY}"
    )
    found: list[tuple[int, str]] = []
    for row, text in con.execute(f"SELECT row, j::VARCHAR FROM google WHERE {_LOSSY}").fetchall():
        read = json.loads(text, parse_float=str, parse_int=str)
        found += [(row, read["cost"]), *((row, credit["amount"]) for credit in read.get("credits") or ())]
    if found:
        rows, texts = zip(*found, strict=True)
        con.execute(
            "INSERT INTO parts SELECT unnest($1::BIGINT[]), unnest($2::VARCHAR[])", [list(rows), list(texts)]
        )


def _objects(file: BillFile) -> str:
    """SELECT of (row, j): each row as JSON."""
    path = literal(str(file.path))
    if file.form == "parquet":
        return (
            f"SELECT row_number() OVER () AS row, to_json(r) AS j FROM (SELECT r FROM read_parquet({path}) r)"
        )
    packed = "gzip" if file.gzipped else "none"
    options = f"format = 'auto', compression = '{packed}'"
    return f"SELECT row_number() OVER () AS row, json AS j FROM read_json_objects({path}, {options})"
