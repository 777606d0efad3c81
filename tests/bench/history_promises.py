"""What a made history says of promises: a contract of the fleet, and readings, standing, alerts, fates and health.

A clause for each region's GPUs (a floor and a ceiling), its power and its queues, and a tranche of the spend.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pipeline.rollup.grid import MINUTE
from pipeline.rollup.quoting import literal
from pipeline.simulate.fleet_spec import FleetSpec

CONTRACT = "halcyon-1gw"
TOPICS = ("telemetry.billing", "telemetry.energy", "telemetry.gpu", "telemetry.queue")
_DAY = 86_400


def contract_text(spec: FleetSpec, starts: str, tranche_starts: str, tranche_ends: str) -> str:
    """The contract as YAML; the term and the tranche between these dates."""
    capacity = [
        f"  - {{id: floor-{r.region}, text: enough GPUs in {r.region}, match: {{region: {r.region}}}, by: [region], "
        f"committed_gpus: {_gpus(spec, i) - 40}, ceiling_gpus: {_gpus(spec, i) + 100}, for: 1m, severity: critical}}"
        for i, r in enumerate(spec.regions)
    ]
    power = [
        f"  - {{id: power-{r.region}, text: within the grid connection, match: {{region: {r.region}}}, by: [region], "
        "at: it, over: 5m, ceiling_megawatts: 100, for: 2m, severity: warning}"
        for r in spec.regions
    ]
    queues = [
        f"  - {{id: wait-{q.queue}, text: short waits, match: {{queue: {q.queue}}}, by: [queue], "
        "indicator: queue_wait_p95, over: 5m, bound: 10m, in_window: {replanning: 3m}, for: 1m, severity: warning}"
        for r in spec.regions
        for q in r.queues
    ]
    lines = [
        *(f"metadata: {{id: {CONTRACT}, version: '1'}}", "parties: {customer: northline, supplier: halcyon}"),
        *(f"term: {{start: {starts}, end: 2099-01-01}}", f"currency: {spec.currency}", "timezone: UTC"),
        "windows:",
        "  replanning: {text: the nightly plan, recurring: [{rrule: FREQ=DAILY, start: '2026-01-01T01:00', duration: 3h}]}",
        *("capacity:", *capacity, "power:", *power, "service_levels:", *queues, "spend:", "  tranches:"),
        f"    - {{id: tranche-1, text: the first, match: {{ServiceProviderName: {spec.provider}}}, from: {tranche_starts}, "
        f"to: {tranche_ends}, ceiling: 900000000, severity: ticket}}",
    ]
    return "\n".join(lines) + "\n"


def _gpus(spec: FleetSpec, region: int) -> int:
    return sum(c.gpus for c in spec.regions[region].clusters)


def promised_table(spec: FleetSpec) -> str:
    """`CREATE TABLE promised(n, clause, alertname, by_values, bound, tight, spread, unit, kind)`: one row for each
    reading of an instant; `tight` is the bound inside the window, `spread` how far readings lie below or above."""
    rows = ", ".join(f"({n}, {row})" for n, row in enumerate(_promised(spec)))
    return (
        "CREATE OR REPLACE TABLE promised AS FROM (VALUES "
        f"{rows}) AS t(n, clause, alertname, by_values, bound, tight, spread, unit, kind)"
    )


def _promised(spec: FleetSpec) -> Iterator[str]:
    for i, r in enumerate(spec.regions):
        by, gpus = f'\'{{"region": "{r.region}"}}\'', _gpus(spec, i)
        yield f"'floor-{r.region}', 'CapacityShortfall', {by}, {gpus - 40}::DOUBLE, {gpus - 40}, 41, 'GPUs', 'gpus'"
        yield f"'floor-{r.region}', 'CapacityCeilingExceeded', {by}, {gpus + 100}, {gpus + 100}, -100, 'GPUs', 'gpus'"
        yield f"'power-{r.region}', 'PowerCeilingExceeded', {by}, 100, 100, -30, 'MW', 'power'"
        for q in r.queues:
            by_queue = f'\'{{"queue": "{q.queue}"}}\''
            yield f"'wait-{q.queue}', 'QueueWaitBreach', {by_queue}, 600, 180, -170, 's', 'wait'"
    for name in ("TrancheExhausted", "TrancheOverrunForecast"):
        yield f"'tranche-1', '{name}', '{{}}', 900000000, 900000000, -90000000, 'USD', 'spend'"


_STATE = f"""SELECT make_timestamp(t * 1000000) AS "time", p.*, (hash(n, t) >> 1)::BIGINT AS h,
    t % {_DAY} BETWEEN 3600 AND 14399 AS inside FROM range($start, $end, {MINUTE}) AS r(t), promised p"""
_FACTS = """CASE kind WHEN 'gpus' THEN '{"seen": ' || 59000 + h % 1000 || ', "healthy": ' || 58900 + h % 1000 ||
        ', "in_use": ' || 50000 + h % 9000 || '}'
    WHEN 'power' THEN '{"basis": "metered"}' WHEN 'spend' THEN '{"spent": "' || 1000000 + t // 60 || '.00"}'
    ELSE '{}' END"""


def _read(start: str, end: str) -> str:
    """Readings of every minute: (time, …, observed, bound, state); one in a thousand is a breach."""
    return f"""SELECT *, CASE WHEN inside THEN tight ELSE bound END AS in_force,
        in_force + spread * ((h & 65535) / 65536 - (h % 1000 = 0)::INT * 1.5) AS observed,
        CASE WHEN (observed - in_force) * sign(spread) >= 0 THEN 'ok' ELSE 'breach' END AS state,
        {_FACTS} AS facts FROM (SELECT *, epoch("time")::BIGINT AS t FROM ({_STATE}))""".replace(
        "$start", start
    ).replace("$end", end)


def readings_rows(start: int, end: int) -> str:
    """SELECT of the published columns of `readings` in `[start, end)`, in the published order."""
    return f"""SELECT "time", '{CONTRACT}' AS contract, clause, alertname, by_values, state, observed::DOUBLE AS observed,
        in_force::DOUBLE AS bound, unit, CASE WHEN inside AND kind IN ('gpus', 'wait') THEN 'replanning' END AS "window",
        (h % 20000)::BIGINT AS samples, facts FROM ({_read(str(start), str(end))}) ORDER BY ALL"""


def standing_rows(newest: int, charged_since: int) -> str:
    """SELECT of `standing` at the end; the tranche has a charge for each day since then."""
    days = f"""(SELECT list({{'day': d, 'usage': '9500000.0000000000', 'other': '0'}}) FROM
        range({charged_since}, {newest}, {_DAY}) AS r(d))"""
    facts = f"""CASE WHEN alertname = 'TrancheExhausted'
        THEN to_json({{'spent': '1', 'days': {days}}})::VARCHAR ELSE facts END"""
    return f"""SELECT '{CONTRACT}' AS contract, clause, alertname, by_values, state, observed::DOUBLE AS observed,
        in_force::DOUBLE AS bound, unit, "time" - INTERVAL 1 DAY AS since, "time", NULL::VARCHAR AS "window",
        (h % 20000)::BIGINT AS samples, {facts} AS facts, NULL::VARCHAR AS labels, NULL::TIMESTAMP AS fired_at,
        NULL::DOUBLE AS fired_observed
        FROM ({_read(str(newest), str(newest + 1))}) ORDER BY ALL"""


SQL_OF_AN_ALERT = "SELECT count(*) AS value FROM (SELECT max(time) AS last FROM gpu WHERE region = 'x') " * 12


def alerts_rows(newest: int, start: int, end: int) -> str:
    """SELECT of `alerts`: a change of state every 200 s, pending, firing, resolved in turn; the newest stay open."""
    phases = "['pending', 'firing', 'resolved']"
    texts = literal(
        f'", "text": "enough GPUs", "runbook": "https://runbooks.example/gpus", "sql": "{SQL_OF_AN_ALERT}"}}'
    )
    return f"""WITH steps AS (SELECT t, t // 200 AS k, k % 3 AS phase, k // 3 AS alert, t - phase * 200 AS begun
            FROM range({-(-start // 200) * 200}, {end}, 200) AS r(t)),
        changes AS (SELECT s.*, p.* FROM steps s JOIN promised p ON p.n = s.alert % (SELECT count(*) FROM promised)
            WHERE NOT (phase = 2 AND t > {newest} - 7200))
        SELECT make_timestamp(t * 1000000) AS "time", alertname, '{CONTRACT}' AS contract, clause,
            json_merge_patch(json_object('alertname', alertname, 'contract', '{CONTRACT}', 'clause', clause,
                'severity', 'warning'), by_values)::VARCHAR AS labels, {phases}[phase + 1] AS state,
            make_timestamp(begun * 1000000) AS active_at,
            CASE WHEN phase > 0 THEN make_timestamp((begun + 200) * 1000000) END AS fired_at,
            CASE WHEN phase = 2 THEN make_timestamp(t * 1000000) END AS resolved_at, 'warning' AS severity,
            bound * 0.9 AS observed, bound::DOUBLE AS bound, unit, NULL::VARCHAR AS "window", 1000::BIGINT AS samples,
            '{{"summary": "' || clause || ' out of bounds' || {texts} AS annotations, true AS trusted,
            make_timestamp(t * 1000000) AS known_from
        FROM changes ORDER BY ALL"""


def fates_rows(start: int, end: int) -> str:
    """SELECT of `fates`: all that comes in is aggregated, but for a few duplicates."""
    return f"""SELECT topic, part::INTEGER AS part, make_timestamp(t * 1000000) AS minute, fate, '' AS reason,
        (CASE fate WHEN 'duplicate' THEN 3 WHEN 'in' THEN 300003 ELSE 300000 END)::BIGINT AS n
        FROM range({start}, {end}, {MINUTE}) AS r(t), range(4) AS p(part), (SELECT unnest({_list(TOPICS)}) AS topic),
            (SELECT unnest(['in', 'aggregated', 'duplicate']) AS fate) ORDER BY ALL"""


def health_rows(start: int, end: int) -> str:
    """SELECT of `health`: every topic each minute."""
    return f"""SELECT make_timestamp(t * 1000000 + 52285681) AS "time", topic, (t - 1600000000) * 20000 AS next_offset,
        (hash(t, topic) % 9000)::BIGINT AS lag, make_timestamp(t * 1000000) AS watermark, 20000::DOUBLE AS events_per_second,
        1 + (hash(t) % 400) / 1000 AS freshness_p99_seconds, 7 + (hash(t) % 900) / 1000 AS decision_delay_p99_seconds,
        0::BIGINT AS undelivered, 'well' AS state, NULL::TIMESTAMP AS since, NULL::VARCHAR AS why
        FROM range({start}, {end}, {MINUTE}) AS r(t), (SELECT unnest({_list(TOPICS)}) AS topic) ORDER BY ALL"""


def _list(texts: Sequence[str]) -> str:
    return f"[{', '.join(map(literal, texts))}]"
