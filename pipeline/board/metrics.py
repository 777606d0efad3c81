"""`/metrics`: the pipeline's own health and how each contract stands, for those who run Prometheus.

Taken from the files that the board reads; a registry of its own, so that nothing of this process mixes in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pipeline.board.cards import SEVERITIES
from pipeline.board.problems import Life
from pipeline.board.published_rows import Published, labels_of
from pipeline.board.text import short
from pipeline.ledger import status as written
from pipeline.notify.links import ALWAYS

KIND = "text/plain; version=0.0.4; charset=utf-8"
OF_CLAUSE = ("contract", "clause", "alertname", "by")
STATES = ("ok", "breach", "unknown")


class GrowingTotals:
    """Counts that never fall: retention takes old rows out of `fates`, which would look like a restart of a counter.

    What was there at first counts; then every growth does.
    """

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str, str], int] = {}
        self.total: Counter[tuple[str, str, str]] = Counter()

    def note(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """The sums by topic, fate and reason as they are now."""
        for row in rows:
            key = (row["topic"], row["fate"], row["reason"])
            self.total[key] += max(0, int(row["n"]) - self._seen.get(key, 0))
            self._seen[key] = int(row["n"])


@dataclass(frozen=True, slots=True)
class MetricsInput:
    """What one look has found; `looked_at` in epoch seconds."""

    life: Life
    published: Published
    looked_at: float
    totals: Mapping[tuple[str, str, str], int] = field(default_factory=dict)


def exposition(seen: MetricsInput, now: float) -> bytes:
    """The text of `/metrics` at `now`, epoch seconds; ages are as of then."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Once(lambda: families(seen, now)))
    return generate_latest(registry)


class _Once(Collector):
    def __init__(self, made: Callable[[], Iterator[Metric]]) -> None:
        self._made = made

    def collect(self) -> Iterator[Metric]:
        return self._made()


def families(seen: MetricsInput, now: float) -> Iterator[Metric]:
    """Every metric, in order."""
    yield from _life(seen, now)
    if seen.life.status is not None:
        yield from _flow(seen.life.status, now)
    yield from _events(seen.totals)
    yield from _standing(seen.published)
    yield from _alerts(seen.published)


def _life(seen: MetricsInput, now: float) -> Iterator[Metric]:
    yield _one(
        "gigawatch_pipeline_up", "Whether a pipeline runs on the data directory.", seen.life.pid is not None
    )
    status = seen.life.status
    if status is not None:
        yield _one(
            "gigawatch_pipeline_stalled", "Whether it runs and nothing progresses; the board says why.",
            seen.life.pid is not None and bool(status.get("stalled")),
        )  # fmt: skip
        yield _one(
            "gigawatch_status_age_seconds", "Since the pipeline last wrote its status, every two seconds.",
            written.age(status, now),
        )  # fmt: skip
    if seen.published.published_at is not None:
        at = seen.published.published_at.replace(tzinfo=UTC).timestamp()
        yield _one(
            "gigawatch_published_age_seconds",
            "Since the pipeline last published alerts and standing, every ten seconds.", max(0.0, now - at),
        )  # fmt: skip
    yield _one(
        "gigawatch_board_look_age_seconds",
        "Since the board last looked at both.",
        max(0.0, now - seen.looked_at),
    )
    yield _one(
        "gigawatch_board_history_readable",
        "Whether it could read the published history.",
        not seen.life.reading,
    )


def _flow(status: Mapping[str, Any], now: float) -> Iterator[Metric]:
    yield _one(
        "gigawatch_intake_events_per_second", "Events taken in, over the last ten seconds.",
        status["rate_events_per_s"],
    )  # fmt: skip
    lag = GaugeMetricFamily("gigawatch_lag_records", "Records that wait in Kafka.", labels=["topic"])
    for topic, parts in status["lag"].items():
        lag.add_metric([short(topic)], sum(parts.values()))
    yield lag
    age = GaugeMetricFamily(
        "gigawatch_watermark_age_seconds", "How far evaluation is behind the clock.", labels=["topic"]
    )
    for topic, mark in status["watermarks"].items():
        age.add_metric([short(topic)], now - datetime.fromisoformat(mark).timestamp())
    yield age
    yield from _delays(status)
    waiting = GaugeMetricFamily(
        "gigawatch_outbox_undelivered", "Alert changes that a destination has not accepted yet.",
        labels=["destination"],
    )  # fmt: skip
    for row in status["undelivered"]:
        waiting.add_metric([short(row["destination"])], row["count"])
    yield waiting


def _delays(status: Mapping[str, Any]) -> Iterator[Metric]:
    for name, key, help in (
        ("freshness", "freshness_s", "From a record's append to the alert's acceptance"),
        ("decision_delay", "decision_delay_s", "From when an alert was due to its acceptance"),
    ):
        for quantile, words in (("p50", "median"), ("p99", "99th percentile")):
            if status[key][quantile] is not None:
                yield _one(f"gigawatch_{name}_{quantile}_seconds", f"{help}, {words}.", status[key][quantile])


def _events(totals: Mapping[tuple[str, str, str], int]) -> Iterator[Metric]:
    taken = CounterMetricFamily(
        "gigawatch_events_in", "Events that came in, whatever became of them.", labels=["topic"]
    )
    fates = CounterMetricFamily(
        "gigawatch_events", "What became of each event, and why where it is not aggregated.",
        labels=["topic", "fate", "reason"],
    )  # fmt: skip
    aside = CounterMetricFamily(
        "gigawatch_measures_set_aside", "Events that are aggregated without a measure that was set aside, and why.",
        labels=["topic", "reason"],
    )  # fmt: skip
    for (topic, fate, reason), n in sorted(totals.items()):
        if fate == "in":
            taken.add_metric([short(topic)], n)
        elif fate == "set_aside":
            aside.add_metric([short(topic), short(reason)], n)
        else:
            fates.add_metric([short(topic), short(fate), short(reason)], n)
    yield taken
    yield fates
    yield aside


def _standing(published: Published) -> Iterator[Metric]:
    observed = GaugeMetricFamily(
        "gigawatch_clause_observed", "What was read for a clause, in the unit of its label.",
        labels=[*OF_CLAUSE, "unit"],
    )  # fmt: skip
    bound = GaugeMetricFamily(
        "gigawatch_clause_bound", "What is promised or allowed now, in the unit of its label.",
        labels=[*OF_CLAUSE, "unit"],
    )  # fmt: skip
    state = GaugeMetricFamily(
        "gigawatch_clause_state", "1 for the state in which a clause is, 0 for the others.",
        labels=[*OF_CLAUSE, "state"],
    )  # fmt: skip
    for labels, row in _clauses(published):
        unit = short(row["unit"], 20)
        for family, value in ((observed, row["observed"]), (bound, row["bound"])):
            if value is not None:
                family.add_metric([*labels, unit], float(value))
        for name in STATES:
            state.add_metric([*labels, name], row["state"] == name)
    yield observed
    yield bound
    yield state


def _clauses(published: Published) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """Each clause and value once: two long values that become one by being cut would be refused as a whole."""
    done: set[tuple[str, ...]] = set()
    for row in published.standing:
        by = ",".join(f"{name}={value}" for name, value in labels_of(row["by_values"]).items() if value)
        labels = (short(row["contract"]), short(row["clause"]), short(row["alertname"]), short(by, 300))
        if labels not in done:
            done.add(labels)
            yield labels, row


def _alerts(published: Published) -> Iterator[Metric]:
    for state in ("firing", "pending"):
        family = GaugeMetricFamily(
            f"gigawatch_alerts_{state}",
            f"Alerts that are {state} now, but for the Watchdog.",
            labels=["severity"],
        )
        count = Counter(
            row["severity"]
            for row in published.alerts
            if row["state"] == state and row["alertname"] != ALWAYS
        )
        for severity in SEVERITIES:
            family.add_metric([severity], count[severity])
        yield family


def _one(name: str, help: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, help, value=float(value))
