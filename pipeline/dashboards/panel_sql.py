"""Questions of the dashboards: what a panel asks through Grafana's built-in MySQL data source, and parts of its SQL.

The SQL is DuckDB's own but for Grafana's macros, so that a panel's question runs in a notebook once they are filled
in.  `$__timeFilter("time")` becomes FROM_UNIXTIME, which the door has as a macro; DIV, which `$__timeGroup` becomes,
would send every question through the translator, so times are grouped by `time_bucket`.

Macros read their arguments up to the first `)`: give them a plain column.
"""

from __future__ import annotations

from textwrap import dedent
from typing import Any, Literal, Self

from grafana_foundation_sdk.cog import builder, runtime, variants
from grafana_foundation_sdk.models.common import DataSourceRef

from pipeline.rules.ready_view import DIMENSIONS
from pipeline.rules.telemetry import OWN

DATA_SOURCE = "gigawatch"
"""The uid of the data source; dashboards/provisioning has the same."""
SOURCE = DataSourceRef(type_val="mysql", uid=DATA_SOURCE)
Form = Literal["table", "time_series"]

NOW = "make_timestamp(epoch_us(now()))"
"""The wall clock as the views have their times: UTC, without a zone."""
ALL = "*"
"""What a variable holds when everything is chosen.  A list of all values would be `IN ()` before the first data."""
BY_REGION, LABELS_REGION = "by_values ->> '$.region'", "labels ->> '$.region'"
"""The region of a reading and of an alert; NULL where it is split by no region."""
BUCKET = 'time_bucket(to_milliseconds($__interval_ms), "time")'
"""Times of readings in steps as wide as a point of the panel."""


def in_days(start: str = "$__timeFrom()") -> str:
    """Rows of the days of a time range: no file of another day is opened, which `time` alone cannot say (see `views`)."""
    return f"date BETWEEN ({start})::DATE AND ($__timeTo())::DATE"


def in_time(column: str = '"time"') -> str:
    """Rows of the dashboard's time range."""
    return f"$__timeFilter({column}) AND {in_days()}"


def at_last(span: str) -> str:
    """Rows of the end of the time range: `span` is an interval such as 15 MINUTE."""
    start = f"$__timeTo() - INTERVAL {span}"
    return f'"time" BETWEEN {start} AND $__timeTo() AND {in_days(start)}'


CHANGES = (
    """(SELECT * FROM alerts WHERE date >= $__timeFrom()::DATE UNION ALL BY NAME SELECT * FROM alerts_now)"""
)
"""Changes of all alerts that were open in the time range: what was over later was changed later, the rest is open now.

From the first change of what is open on, ten years of days would have to be read to find it.
"""


class PanelQuery(variants.Dataquery):
    """A target of the MySQL data source, which the SDK has no model of; `form` is how Grafana reads the answer."""

    def __init__(self, sql: str, form: Form = "table", ref: str = "A") -> None:
        self.sql, self.form, self.ref = sql, form, ref

    def to_json(self) -> dict[str, object]:
        """As Grafana keeps it since version 9."""
        return {
            "datasource": SOURCE,
            "editorMode": "code",
            "format": self.form,
            "rawQuery": True,
            "rawSql": self.sql,
            "refId": self.ref,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The other way round."""
        return cls(data["rawSql"], data["format"], data["refId"])


class MysqlTarget(builder.Builder[PanelQuery]):
    """The SDK's panels take builders."""

    def __init__(self, sql: str, form: Form = "table", ref: str = "A") -> None:
        self._question = PanelQuery(plain(sql), form, ref)

    def build(self) -> PanelQuery:
        """The target."""
        return self._question


def register() -> None:
    """Lets the SDK read our targets back from JSON."""
    runtime.register_dataquery_variant(runtime.DataqueryConfig("mysql", PanelQuery.from_json))


def plain(sql: str) -> str:
    """Without the indentation that it has in the source."""
    return dedent(sql).strip()


def chosen(column: str, variable: str) -> str:
    """Whether the column is among what is chosen.  What is split by nothing of the kind concerns every choice."""
    return f"('{ALL}' IN (${{{variable}}}) OR {column} IN (${{{variable}}}) OR {column} IS NULL)"


def of_contract() -> str:
    """Rows of the chosen contracts; our own alerts are about the numbers of all of them."""
    return f"('{ALL}' IN (${{contract}}) OR contract IN (${{contract}}, '{OWN}'))"


def of_region(column: str = "region") -> str:
    """Rows of the chosen regions, and those of no region."""
    return chosen(column, "region")


def where(by_values: str = "by_values") -> str:
    """The values that a reading is split by, in words, whatever they are."""
    return f"array_to_string([value FOR value IN ({by_values} ->> '$.*') IF value <> ''], ' / ')"


WORST_FIRST = "CASE state WHEN 'breach' THEN 0 WHEN 'unknown' THEN 1 ELSE 2 END"


_SPLIT = ", ".join(f"nullif({name}, '')" for name in DIMENSIONS)
CLAUSE_LABEL = f"concat_ws(' / ', clause, {_SPLIT})"
"""A clause and what it is split by, in the views that have a column for each dimension."""


def spread(*columns: str) -> str:
    """Columns as rows of their names and values; what is NULL is left out by whoever asks."""
    names = ", ".join(f"'{name}'" for name in columns)
    values = ", ".join(f'"{name}"::DOUBLE' for name in columns)
    return f"unnest([{names}]) AS what, unnest([{values}]) AS value"


def view_of(sql: str) -> str:
    """The view of raw events that an alert's own query reads."""
    return f"regexp_extract({sql}, '\\bFROM ([a-z_0-9]+)', 1)"


def to_clause(
    region: str = "NULL", since: str = "", until: str = "NULL::TIMESTAMP", events: str = "NULL"
) -> str:
    """Where a row leads: the query of a link to the clause's dashboard, with every value escaped.

    Ids and regions come from contracts and events, and are data, never part of an address.  A row of no region leads on
    with those that are chosen.  With `since` the link has a range of its own: the time from half an hour before to half an
    hour after `until`, or, of what is not over, the least usual range up to now that shows its beginning.  Without, the
    panel adds the dashboard's own range as it stands.  `events` names the raw events to show.
    """
    parts = [
        "'var-contract='", "url_encode(contract)", "'&var-clause='", "url_encode(clause)",
        f"coalesce('&var-region=' || url_encode({region}), {carried('region')})",
        f"coalesce('&var-events=' || nullif({events}, ''), '')",
    ]  # fmt: skip
    if since:
        around = f"'&from=', epoch_ms({since}) - 1800000, '&to=', epoch_ms({until}) + 1800000"
        recent = " ".join(f"WHEN {since} > {NOW} - INTERVAL {span} THEN '{back}'" for span, back in RECENT)
        parts.append(
            f"CASE WHEN {until} IS NOT NULL THEN concat({around}) "
            f"ELSE concat('&from=now-', CASE {recent} ELSE '30d' END, '&to=now') END"
        )
    return f"concat({', '.join(parts)}) AS link"


def carried(variable: str) -> str:
    """What is chosen of a variable, as SQL for a part of an address."""
    return (
        f"array_to_string(['&var-{variable}=' || CASE value WHEN '{ALL}' THEN '$__all' ELSE url_encode(value) END "
        f"FOR value IN [${{{variable}}}]], '')"
    )


RECENT = (
    ("50 MINUTE", "1h"),
    ("170 MINUTE", "3h"),
    ("350 MINUTE", "6h"),
    ("23 HOUR", "24h"),
    ("6 DAY", "7d"),
)
"""(what began within it, the range that shows it)."""
