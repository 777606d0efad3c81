"""Clause: where every alert leads. One clause of any kind: its words, its readings against its bound, its raw events."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard

from pipeline.serve.dashboards_frame import PREFIX, Variable, frame, variable
from pipeline.serve.dashboards_panels import (
    AGO,
    COUNT,
    NUMBER,
    SECONDS,
    data_age,
    lay_out,
    lines,
    rows,
    stat,
    timeline,
)
from pipeline.serve.dashboards_sql import (
    ALL,
    BUCKET,
    BY_REGION,
    LABELS_REGION,
    SOURCE,
    chosen,
    in_days,
    in_time,
    of_contract,
    of_region,
    plain,
    to_clause,
    view_of,
    where,
)  # fmt: skip

OF_CLAUSE = chosen("clause", "clause")
READ = f"{of_contract()} AND {OF_CLAUSE} AND {of_region(BY_REGION)}"
CLAUSES = f"SELECT DISTINCT clause FROM clauses WHERE {of_contract()} ORDER BY 1"
VIEWS = """
    SELECT left(table_name, -3) AS events FROM information_schema.tables
    WHERE table_name LIKE '%\\_1d' ESCAPE '\\' ORDER BY events <> 'gpu', 1
"""
"""Event types are the views that have roll-ups, so that a new one is here by itself."""
RAW_SPAN = f"""
    SELECT CASE WHEN coalesce(sum(samples), 0) <= 100000 THEN '400 DAY' ELSE '10 MINUTE' END AS raw_span
    FROM ${{events}}_1h WHERE {in_time("window_start")}
"""
"""A fleet sends 20,000 samples a second, a supplier a few charges an hour: few are shown of the whole time range."""
UNIT = "CASE unit WHEN 's' THEN 's' WHEN 'MW' THEN 'megwatt' ELSE 'suffix: ' || unit END"

STATE = f"""
    SELECT state, epoch_ms(min(since)) AS since, count(*) AS readings FROM standing WHERE {READ}
    GROUP BY state ORDER BY CASE state WHEN 'breach' THEN 0 WHEN 'unknown' THEN 1 ELSE 2 END LIMIT 1
"""
BROKEN = f"""
    SELECT 60 * count(DISTINCT "time") AS "in breach" FROM readings
    WHERE {in_time()} AND state = 'breach' AND second("time") = 0 AND {READ}
"""
WORDS = f"""
    SELECT contract, version, clause, kind, severity, text, match, by_dimensions AS "split by", risk_per_hour::DOUBLE
        AS "risk an hour", currency, runbook, contact, supplier, term_end AS ends
    FROM clauses WHERE {of_contract()} AND {OF_CLAUSE} ORDER BY contract, clause LIMIT 100
"""
TERMS = f"""
    SELECT clause, each.key AS term, each.value ->> '$' AS value
    FROM (SELECT contract, clause, terms FROM clauses WHERE {of_contract()} AND {OF_CLAUSE}), json_each(terms) AS each
    WHERE each.value ->> '$' IS NOT NULL ORDER BY contract, clause, each.id LIMIT 300
"""
SHOWN = f"""shown AS (
        SELECT contract, clause, alertname, by_values FROM standing WHERE {READ}
        ORDER BY CASE state WHEN 'breach' THEN 0 WHEN 'unknown' THEN 1 ELSE 2 END, since, clause, alertname, by_values LIMIT 12),
    read AS (
        SELECT * FROM readings SEMI JOIN shown USING (contract, clause, alertname, by_values)
        WHERE {in_time()} AND {OF_CLAUSE})"""
"""Readings of the twelve that stand worst: more nobody can tell apart, and a fleet has hundreds."""
AGAINST = f"""
    WITH {SHOWN}
    SELECT moment AS "time", concat_ws(' ', concat_ws(' / ', clause, alertname, nullif(split, '')), what) AS metric, value
    FROM (
        SELECT moment, clause, alertname, {where()} AS split, unnest(['observed', 'bound']) AS what,
            unnest([observed, bound]) AS value
        FROM (
            SELECT {BUCKET} AS moment, clause, alertname, by_values, avg(observed) AS observed,
                arg_max(bound, "time") AS bound
            FROM read GROUP BY ALL))
    WHERE value IS NOT NULL ORDER BY 1
"""
UNITS = f"SELECT {UNIT} AS unit FROM standing WHERE {READ} AND unit <> '' GROUP BY unit ORDER BY count(*) DESC LIMIT 1"
FACTS = f"""
    WITH {SHOWN}
    SELECT moment AS "time", concat_ws(' / ', clause, nullif({where()}, ''), each.key) AS metric,
        max((each.value ->> '$')::DOUBLE) AS value
    FROM (
        SELECT {BUCKET} AS moment, clause, by_values, arg_max(facts, "time") AS facts FROM read GROUP BY ALL),
        json_each(facts) AS each
    WHERE each.type IN ('UBIGINT', 'BIGINT', 'DOUBLE') AND each.key NOT LIKE 'window%'
    GROUP BY ALL ORDER BY 1
"""
LANES = f"""
    WITH {SHOWN}
    SELECT moment AS "time", concat_ws(' / ', clause, alertname, nullif({where()}, '')) AS metric, worst::DOUBLE AS value
    FROM (
        SELECT {BUCKET} AS moment, clause, alertname, by_values,
            max(CASE state WHEN 'ok' THEN 0 WHEN 'unknown' THEN 1 ELSE 2 END) AS worst
        FROM read GROUP BY ALL)
    ORDER BY 1
"""
HISTORY = f"""
    SELECT "time", severity, state, alertname AS what, clause, active_at AS since, observed, bound, unit, "window",
        samples, trusted, annotations ->> '$.summary' AS summary, annotations ->> '$.sql' AS "sql", contract,
        {to_clause(LABELS_REGION, "active_at", view_of("annotations ->> '$.sql'"))}
    FROM alerts
    WHERE {in_time()} AND {of_contract()} AND {OF_CLAUSE} AND {of_region(LABELS_REGION)}
    ORDER BY "time" DESC LIMIT 200
"""
RAW_FROM = "greatest($__timeFrom(), $__timeTo() - INTERVAL ${raw_span})"
RAW = f"""
    SELECT * FROM ${{events}}
    WHERE "time" BETWEEN {RAW_FROM} AND $__timeTo() AND {in_days(RAW_FROM)}
        AND ('{ALL}' IN (${{region}}) OR coalesce(*COLUMNS('^(region|RegionId|source)$')) IN (${{region}}))
    ORDER BY "time" DESC LIMIT 100
"""


def events() -> Variable:
    """`$events`: which raw events are shown; an alert says which its number rests on."""
    return (
        Variable("events").label("Raw events").description("The view of raw events at the foot").datasource(SOURCE)
        .query(plain(VIEWS)).definition(plain(VIEWS)).refresh(dashboard.VariableRefresh.ON_DASHBOARD_LOAD)
        .sort(dashboard.VariableSort.DISABLED).multi(False).include_all(False)
        .current(dashboard.VariableOption(text="gpu", value="gpu"))
    )  # fmt: skip


def raw_span() -> Variable:
    """`$raw_span`, hidden: how far back from the end of the time range raw events are read."""
    return (
        Variable("raw_span").description("How much of the time range raw events are read of").datasource(SOURCE)
        .query(plain(RAW_SPAN)).definition(plain(RAW_SPAN)).hide(dashboard.VariableHide.HIDE_VARIABLE)
        .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED).multi(False).include_all(False)
        .current(dashboard.VariableOption(text="10 MINUTE", value="10 MINUTE"))
    )  # fmt: skip


def clause() -> dashboard.Dashboard:
    """The drill-down: from an alert to the clause, to how it was read, to the events that it rests on."""
    from_data = dashboard.DataTransformerConfig(
        id_val="configFromData",
        options={
            "configRefId": "unit",
            "mappings": [{"fieldName": "unit", "handlerKey": "unit", "reducerId": "lastNotNull"}],
        },
    )
    variables = [
        variable("clause", "Clause", CLAUSES, "Clauses of the chosen contracts, of every kind"),
        events(),
        raw_span(),
    ]
    panels = lay_out(
        (4, [
            (6, stat("State", "The worst state among what the clause is split by, since when, and how many are in it",
                     STATE, NUMBER, fields={"since": {"unit": AGO}})),
            (4, stat("In breach", "Minutes of this time range in which any of it was out of bounds", BROKEN, SECONDS,
                     bad_above=1)),
            (12, rows("In the contract's words", "The clause, whom to call and what to do", WORDS)),
            (2, data_age()),
        ]),
        (9, [(24, lines("Read, and what is promised", "Each reading and the bound then in force (dashed), of the twelve worst",
                        AGAINST, NUMBER, more=[("unit", UNITS, "table")], transformations=[from_data]))]),
        (5, [(24, timeline("State over time", "ok, unknown or breach of each of its readings", LANES))]),
        (8, [
            (14, lines("What else the readings say", "Numbers beside the reading: healthy, silent, …; unit as the clause's",
                       FACTS, NUMBER)),
            (10, rows("Terms", "What only its kind promises: bounds, ramps, windows", TERMS)),
        ]),
        (8, [(24, rows("Its alerts", "Every change of state, the newest first, with the query that gives the number",
                       HISTORY, unit=COUNT, fields={"sql": {"custom.inspect": True}}, links={"what": f"{PREFIX}clause"}))]),
        (10, [(24, rows("Raw events", "The newest 100 of the time range; of a stream with more than 100,000 in it, of its "
                        "last ten minutes. Raw rows are published up to five minutes late.", RAW))]),
    )  # fmt: skip
    return frame(
        "clause", "Clause", "Where every alert leads: one clause, its readings, its alerts and its raw events",
        panels, variables=variables,
    )  # fmt: skip
