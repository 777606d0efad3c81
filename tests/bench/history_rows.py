"""The rows of a made history as SQL: what a fleet of 1 GW leaves in the published tables, any window of any width.

Every number follows from a hash of its series and window, so that the same history is made each time, and two
windows differ as measured ones do: no file is smaller, or faster to read, for being made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pipeline.catalog import EventType, Measure
from pipeline.rollup.quoting import literal, quoted
from pipeline.simulate.fleet_spec import ClusterSpec, FleetSpec, QueueSpec, RegionSpec
from pipeline.views.published import GPU_MINUTES_BY, distinct_columns, measure_aggregates

REGIONS, RACKS = 10, 410
"""Regions, and racks in each of the two large clusters of a region: with a small one 60,000 GPUs."""
RACK, NODE = "ND_GB300_v6", "ND_H100_v5"

TYPICAL: Mapping[str, tuple[float, float]] = {
    "power_watts": (300, 1300), "memory_used_bytes": (1e11, 3e11), "memory_total_bytes": (309237645312, 309237645312),
    "energy_joules_total": (1e9, 9e9), "temperature_celsius": (40, 80), "xid": (0, 0), "pending_jobs": (0, 40),
    "pending_gpus": (0, 320), "running_gpus": (500, 900), "oldest_wait_seconds": (0, 400),
    "admission_wait_seconds": (1, 300), "it_power_watts": (35e6, 45e6), "facility_power_watts": (42e6, 54e6),
    "carbon_gco2e_per_kwh": (20, 400), "price_per_mwh": (30, 120),
}  # fmt: skip
"""Between what a measure lies here; a ratio, which is not listed, between 0 and 1."""


def fleet_spec(regions: int = REGIONS, racks: int = RACKS) -> FleetSpec:
    """600,000 GPUs in 8,200 racks that each name their NVLink domain, and in ten clusters of 120 plain nodes."""
    return FleetSpec(provider="halcyon", regions=[_region(n, racks) for n in range(regions)])


def _region(n: int, racks: int) -> RegionSpec:
    clusters = [
        ClusterSpec(cluster=f"r{n:02}-{part}", sku=RACK, gpus=racks * 72, nvlink_domains=True)
        for part in "ab"
    ]
    queues = [
        QueueSpec(
            queue=f"r{n:02}-{kind}", cluster=f"r{n:02}-{part}", workload_class=kind, arrivals_per_minute=20,
            admissions_per_minute=40,
        )
        for part, kind in (("a", "training"), ("b", "inference"))
    ]  # fmt: skip
    small = ClusterSpec(cluster=f"r{n:02}-h", sku=NODE, gpus=960)
    return RegionSpec(
        region=f"region-{n:02}", site=f"site-{n:02}", clusters=[*clusters, small], queues=queues
    )


Series = tuple[int, dict[str, str]]
"""Entities that report together (GPUs of a rack; 1 for what has none), and the values of the dimensions."""


def series_of(spec: FleetSpec, view: str) -> list[Series]:
    """Every series that the fleet reports of one event type."""
    found = {"gpu": _gpus, "queue": _queues, "energy": _feeds, "billing": _charges}[view](spec)
    return list(found)


def _gpus(spec: FleetSpec) -> Iterator[Series]:
    for region in spec.regions:
        for c in region.clusters:
            where = {
                "provider": spec.provider, "region": region.region, "site": region.site, "cluster": c.cluster, "sku": c.sku,
            }  # fmt: skip
            racks = c.gpus // 72 if c.nvlink_domains else 0
            yield from ((72, {**where, "nvlink_domain": f"{c.cluster}-r{n:04}"}) for n in range(racks))
            if not racks:
                yield c.gpus, where


def _queues(spec: FleetSpec) -> Iterator[Series]:
    for r in spec.regions:
        for q in r.queues:
            yield 1, {
                "provider": spec.provider, "region": r.region, "cluster": q.cluster, "queue": q.queue,
                "workload_class": q.workload_class,
            }  # fmt: skip


def _feeds(spec: FleetSpec) -> Iterator[Series]:
    for r in spec.regions:
        for feed in r.feeds:
            yield 1, {"provider": spec.provider, "region": r.region, "site": r.site, "feed": feed}


def _charges(spec: FleetSpec) -> Iterator[Series]:
    for r in spec.regions:
        for sku in sorted({c.sku for c in r.clusters}):
            for category in ("Tax", "Usage"):
                yield 1, {
                    "ServiceProviderName": spec.provider, "RegionId": r.region, "SkuId": sku,
                    "ChargeCategory": category, "BillingCurrency": spec.currency,
                    "ConsumedUnit": "GPU-Hours", "PricingUnit": "GPU-Hours",
                }  # fmt: skip


def series_table(event_type: EventType, series: Sequence[Series]) -> str:
    """`CREATE TABLE fleet_<view>(n, entities, lead, <dimensions>)`: `lead` is the first series of its cluster."""
    names = [d.name for d in event_type.dimensions]
    seen: set[str] = set()
    rows = []
    for n, (entities, values) in enumerate(series):
        cluster = values.get("cluster", str(n))
        texts = [f"{literal(values[name])}" if name in values else "NULL" for name in names]
        rows.append(f"({n}, {entities}, {str(cluster not in seen).lower()}, {', '.join(texts)})")
        seen.add(cluster)
    columns = ", ".join([f"{quoted(name)}::VARCHAR AS {quoted(name)}" for name in names])
    named = ", ".join(["n", "entities", "lead", *map(quoted, names)])
    return (
        f"CREATE OR REPLACE TABLE fleet_{event_type.view} AS SELECT n, entities, lead, {columns} "
        f"FROM (VALUES {', '.join(rows)}) AS t({named})"
    )


def rollup_rows(
    event_type: EventType, seconds: int, start: int, end: int, *, still: int = 1, leads_only: bool = False
) -> str:
    """SELECT of the published columns for each series and window of `[start, end)`, in the published order.

    `still`: seconds for which a series' measures (not its counts) stay the same, and so take little room.
    """
    dimensions = [quoted(d.name) for d in event_type.dimensions]
    step = (
        max(3600, seconds) if event_type.retained else seconds
    )  # charges are by the hour, whatever the width
    reports = max(1, seconds // event_type.interval)
    columns = [
        "window_start",
        *dimensions,
        f"(entities * {reports})::BIGINT AS samples",
        *(f"{_distinct(mark)} AS {quoted(name)}" for name, mark in distinct_columns(event_type)),
        *(c for i, m in enumerate(event_type.measures) for c in _measure(m, i)),
    ]
    windows = (
        f"SELECT make_timestamp(t * 1000000) AS window_start, t FROM range({start}, {end}, {step}) AS r(t)"
    )
    # In a window shorter than the interval only some have their turn: of racks one in so many, each with all its GPUs,
    # of a cluster of plain nodes as large a part of its GPUs.
    turns = max(1, event_type.interval // seconds)
    only = f"WHERE (parted OR (n + t // {seconds}) % {turns} = 0)" + (" AND lead" if leads_only else "")
    series = (
        f"SELECT * REPLACE (CASE WHEN parted THEN entities // {turns} ELSE entities END AS entities) FROM "
    )
    return (
        f"SELECT {', '.join(columns)} FROM (SELECT *, (hash(n, t) >> 1)::BIGINT AS h, "
        f"(hash(n, t // {still}) >> 1)::BIGINT AS m FROM ({windows}), "
        f"({series} (SELECT *, entities > 72 AS parted FROM fleet_{event_type.view})) {only}) "
        f"ORDER BY {', '.join(['window_start', *dimensions])}"
    )


def minutes_rows(event_type: EventType, start: int, end: int) -> str:
    """SELECT of the published columns of GPU-minutes for each quarter of an hour of `[start, end)`: one GPU in a hundred
    is silent."""
    by = ", ".join(GPU_MINUTES_BY)
    return f"""SELECT make_timestamp(t * 1000000) AS window_start, {by}, (15 * gpus - missing)::BIGINT AS delivered,
            (15 * gpus - missing - gpus // 100)::BIGINT AS healthy, (14 * gpus - missing)::BIGINT AS used,
            missing::BIGINT AS silent, 15::BIGINT AS covered, 60::INTEGER AS step_seconds
        FROM (SELECT *, 15 * (hash(t, {by}) % (1 + gpus // 100))::BIGINT AS missing
              FROM range({start}, {end}, 900) AS r(t),
                  (SELECT {by}, sum(entities)::BIGINT AS gpus FROM fleet_{event_type.view} GROUP BY ALL)) ORDER BY ALL"""


def _distinct(mark: str) -> str:
    """All report, one GPU in a hundred racks is ill, all but one in twenty are at work."""
    shares = {
        "observed": "entities",
        "unhealthy": "(h % 100 = 0)::INT",
        "in_use": "entities - h % (1 + entities // 20)",
    }
    return f"({shares[mark]})::BIGINT"


def _measure(measure: Measure, number: int) -> Iterator[str]:
    low, high = TYPICAL.get(measure.name, (0.0, 1.0))
    value = f"({low} + {high - low} * ((m >> {4 * number}) & 1048575) / 1048575)"
    small = f"({low} + {high - low} * ((m >> {4 * number}) & 4095) / 4095)"
    total = f"(round({value} * samples / {measure.quantum}) * {measure.quantum})::DOUBLE"
    money = "(3000 + m % 100000 / 100)::DECIMAL(38,15)"
    forms = {
        "mean": f"{total} / samples", "sum": total, "min": f"round({small} * 0.9, 3)", "max": f"round({small} * 1.1, 3)",
        "last": f"round({small}, 3)", "count": "(samples * 2)::BIGINT", "p50": f"{value} / 3", "p95": value,
        "p99": f"{value} * 1.3",
    }  # fmt: skip
    for aggregate in measure_aggregates(measure):
        form = money if measure.kind == "money" else "'ok'" if measure.kind == "text" else forms[aggregate]
        yield f"{form} AS {quoted(f'{measure.name}_{aggregate}')}"
