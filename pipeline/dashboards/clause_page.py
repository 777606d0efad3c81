"""Clause: where every alert leads. One clause of any kind: its words, its readings against its bound, its raw events."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard

from pipeline.dashboards.frame import PREFIX, Variable, frame, hidden, variable
from pipeline.dashboards.panel_series import lanes, with_gaps
from pipeline.dashboards.panel_sql import (
    ALL,
    BUCKET,
    BY_REGION,
    LABELS_REGION,
    SOURCE,
    WORST_FIRST,
    chosen,
    in_days,
    in_time,
    of_contract,
    of_region,
    plain,
    to_clause,
    view_of,
    where,
)
from pipeline.dashboards.panels import (
    HIDDEN,
    NONE_IS_GOOD,
    NUMBER,
    RIGHT,
    lay_out,
    lines,
    rows,
    stat,
    timeline,
    with_unit,
)
from pipeline.dashboards.sql_words import UNIT_OF_SERIES, UNREAD, amount, known_state, observed, span

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
STATE = f"""
    SELECT {known_state()} AS state, alertname AS "fires", {where()} AS "where", since,
        {observed()}, {amount("bound", "unit")} AS bound
    FROM standing WHERE {READ} ORDER BY {WORST_FIRST.replace("state", "standing.state")}, since, clause LIMIT 50
"""
BROKEN = f"""
    SELECT CASE WHEN minutes = 0 THEN 'none' ELSE {span("60.0 * minutes")} END AS "in breach"
    FROM (SELECT count(DISTINCT "time") AS minutes FROM readings
          WHERE {in_time()} AND state = 'breach' AND second("time") = 0 AND {READ})
"""
WORDS = f"""
    SELECT contract, version, clause, severity, text, format('{{:,.0f}} {{}}', risk_per_hour::DOUBLE, currency)
        AS "risk an hour", contact, CASE WHEN runbook <> '' THEN 'runbook' END AS "to do", runbook
    FROM clauses WHERE {of_contract()} AND {OF_CLAUSE} ORDER BY contract, clause LIMIT 100
"""
TERMS = f"""
    SELECT clause, replace(each.key, '_', ' ') AS term, each.value ->> '$' AS value
    FROM (SELECT contract, clause, terms FROM clauses WHERE {of_contract()} AND {OF_CLAUSE}), json_each(terms) AS each
    WHERE each.value ->> '$' NOT IN ('', '{{}}', '[]') ORDER BY contract, clause, each.id LIMIT 300
"""
SHOWN = f"""stood AS (
            SELECT contract, clause, alertname, by_values, unit,
                row_number() OVER (ORDER BY {WORST_FIRST}, since, clause, alertname, by_values) AS n
            FROM standing WHERE {READ}),
        shown AS (
            SELECT contract, clause, alertname, by_values FROM stood
            WHERE unit = (SELECT arg_min(unit, n) FROM stood) ORDER BY n LIMIT 10),
        read AS (
            SELECT * FROM readings SEMI JOIN shown USING (contract, clause, alertname, by_values)
            WHERE {in_time()} AND {OF_CLAUSE})"""
"""Readings of the ten that stand worst and share the worst one's unit: GPUs and dollars have no axis in common."""
AGAINST = with_gaps(f"""
        WITH {SHOWN}
        SELECT moment AS "time", concat_ws(' ', concat_ws(' / ', clause, alertname, nullif(split, '')), what) AS metric, value
        FROM (
            SELECT moment, clause, alertname, {where()} AS split, unnest(['observed', 'bound']) AS what,
                unnest([observed, bound]) AS value
            FROM (
                SELECT {BUCKET} AS moment, clause, alertname, by_values, avg(observed) FILTER (NOT {UNREAD}) AS observed,
                    arg_max(bound, "time") AS bound
                FROM read GROUP BY ALL))
    """)
UNITS = f"""
    SELECT {UNIT_OF_SERIES} AS unit FROM standing WHERE {READ}
    ORDER BY {WORST_FIRST}, since, clause, alertname, by_values LIMIT 1
"""
IN_ITS_UNIT = """TRY_CAST(each.value ->> '$' AS DOUBLE) IS NOT NULL
            AND (unit = 'GPUs' OR each.key IN ('spent', 'forecast'))"""
"""Counts of GPUs and amounts of money; what else lies beside a reading may be of another unit, which nothing says."""
FACTS = f"""
    SELECT clause, alertname AS "fires", {where()} AS "where", replace(each.key, '_', ' ') AS "what",
        CASE WHEN {IN_ITS_UNIT} THEN {amount("TRY_CAST(each.value ->> '$' AS DOUBLE)", "unit")}
            ELSE each.value ->> '$' END AS value
    FROM (SELECT * FROM standing WHERE {READ}) AS stands, json_each(facts) AS each
    WHERE each.type NOT IN ('ARRAY', 'OBJECT', 'NULL') AND length(each.value ->> '$') BETWEEN 1 AND 200
        AND each.key NOT LIKE 'window%'
    ORDER BY {WORST_FIRST}, clause, alertname, by_values, each.id LIMIT 200
"""
LANES = lanes(f"readings WHERE {in_time()} AND {READ}")
HISTORY = f"""
    SELECT "time", severity, state, alertname AS what, clause, {amount("observed", "unit")} AS observed,
        {amount("bound", "unit")} AS bound, annotations ->> '$.summary' AS summary, annotations ->> '$.sql' AS "sql",
        {to_clause(LABELS_REGION, "active_at", "alerts.resolved_at", view_of("annotations ->> '$.sql'"))}
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
    """`$raw_span`: how far back from the end of the time range raw events are read."""
    return hidden("raw_span", RAW_SPAN, "How much of the time range raw events are read of", "10 MINUTE")


def clause() -> dashboard.Dashboard:
    """The drill-down: from an alert to the clause, to how it was read, to the events that it rests on."""
    variables = [
        variable("clause", "Clause", CLAUSES, "Clauses of the chosen contracts, of every kind"),
        events(),
        raw_span(),
    ]
    panels = lay_out(
        (6, [
            (18, rows("How it stands", "Each reading of the clause, the broken ones first", STATE,
                      times=["since"], widths={"state": 80, "fires": 195, "observed": 135, "bound": 120},
                      wrapped=["where"], fields={"observed": RIGHT, "bound": RIGHT})),
            (6, stat("Out of bounds", "Minutes of this time range in which any of it was out of bounds", BROKEN,
                     mappings=NONE_IS_GOOD, size=36)),
        ]),
        (6, [(24, rows("In the contract's words", "The clause, what an hour of breach costs, whom to call and what to do",
                       WORDS, widths={"contract": 145, "version": 80, "clause": 150, "severity": 75, "risk an hour": 115,
                                      "contact": 220, "to do": 80}, wrapped=["text", "contact"],
                       fields={"risk an hour": RIGHT, "runbook": HIDDEN, "to do": {"links": [{
                           "title": "Its runbook", "url": "${__data.fields.runbook:raw}", "targetBlank": True}]}}))]),
        (11, [(24, lines("Read, and what is promised", "Each reading and the bound then in force, dotted, of the ten that "
                         "stand worst and share a unit. A gap: nobody knows", AGAINST, NUMBER, legend=520,
                         **with_unit(UNITS)))]),
        (12, [(24, timeline("State over time", "ok, unknown or breach of each of its readings, the worst first; twelve at "
                            "most", LANES))]),
        (9, [
            (14, rows("What else the readings say", "What lies beside each reading now: healthy, silent, on course to, …",
                      FACTS, widths={"clause": 125, "fires": 190, "what": 95, "value": 140}, wrapped=["where", "value", "what"])),
            (10, rows("Terms", "What only its kind promises: bounds, ramps, windows", TERMS,
                      widths={"clause": 140, "term": 130}, wrapped=["value", "term"])),
        ]),
        (9, [(24, rows("Its alerts", "Every change of state, the newest first, with the query that gives the number",
                       HISTORY, times=["time"], widths={"severity": 75, "state": 80, "what": 190, "clause": 150,
                                        "observed": 130, "bound": 120, "sql": 80},
                       wrapped=["summary"], fields={"sql": {"custom.inspect": True}, "observed": RIGHT, "bound": RIGHT},
                       links={"what": f"{PREFIX}clause"}, keep_time=False))]),
        (11, [(24, rows("Raw events", "The newest 100 of the time range; of a stream with more than 100,000 in it, of its "
                        "last ten minutes. Raw rows are published up to five minutes late. Wide rows scroll.", RAW,
                        widths={"time": 185, "gpu": 330, "source": 260}))]),
    )  # fmt: skip
    return frame(
        "clause", "Clause", "Where every alert leads: one clause, its readings, its alerts and its raw events",
        panels, variables=variables, concerning=OF_CLAUSE,
    )  # fmt: skip
