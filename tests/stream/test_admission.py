"""Cardinality: a topic's series and entities are limited; known ones go on, and what is beyond is set aside."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.contract.model import PipelineAlerts
from pipeline.stream.admission import KEPT
from pipeline.stream.health import GROWN_FOR, Health
from pipeline.stream.process import Processor
from pipeline.stream.watermark import Watermarks


def limited(pipeline: Any, max_series: int = 1_000, max_entities: int = 1_000_000) -> Any:
    pipeline.processor = Processor(
        pipeline.ledger.con, pipeline.catalog, pipeline.data, 2**20, max_series, max_entities
    )
    return pipeline


def gpus(make: Any, clusters: range, gpu: str = "g", at: int = 0) -> list[Any]:
    """A record of one GPU in each of these clusters."""
    return [make.event(cluster=f"c{n}", gpu=gpu, id=f"{gpu}-{n}-{at}", at=make.T0 + at) for n in clusters]


def clusters_in(pipeline: Any) -> set[str]:
    return {name for (name,) in pipeline.sql("SELECT cluster FROM series_gpu")}


def test_what_is_beyond_the_limit_is_set_aside_with_its_reason_and_the_known_go_on(
    pipeline: Any, make: Any
) -> None:
    one = limited(pipeline, max_series=10)
    one.take(*gpus(make, range(8)))
    delta, _ = one.take(*gpus(make, range(5, 200), at=30))
    assert clusters_in(one) == {f"c{n}" for n in range(10)}
    assert one.fates() == {("aggregated", ""): 8 + 5, ("quarantined", "too_many_series"): 190}
    assert one.sql("SELECT sum(n) FILTER (fate = 'in') - sum(n) FILTER (fate <> 'in') FROM fates") == [(0,)]
    one.take(*gpus(make, range(10), at=60))
    assert one.fates()["aggregated", ""] == 23
    kept = [s for s in delta.written() if s.topic == "quarantine"]
    assert sum(s.rows for s in kept) == KEPT


def test_the_same_series_are_let_in_however_the_log_is_cut_and_after_a_restart(
    make: Any, make_pipeline: Callable[..., Any], tmp_path: Path
) -> None:
    found = []
    records = [r for at in (0, 30) for r in gpus(make, range(40), at=at)]
    for number, size in enumerate((7, 80)):
        data = tmp_path / str(number)
        one = limited(make_pipeline(data), max_series=25)
        for at in range(0, len(records), size):
            one.take(*records[at : at + size])
            if size == 7:
                one.close()
                one = limited(make_pipeline(data), max_series=25)
        found.append((clusters_in(one), one.fates()))
        one.close()
    assert found[0] == found[1]
    assert found[0][0] == {f"c{n}" for n in range(25)}


def test_a_series_that_was_not_heard_for_a_month_frees_its_place(pipeline: Any, make: Any) -> None:
    one = limited(pipeline, max_series=10)
    day = 86_400
    one.take(*gpus(make, range(10)), watermarks={"telemetry.gpu": make.T0})
    one.take(*gpus(make, range(3), at=40 * day), watermarks={"telemetry.gpu": make.T0 + 40 * day})
    one.take(*gpus(make, range(20, 40), at=40 * day + 30))
    assert clusters_in(one) == {f"c{n}" for n in (*range(10), *range(20, 27))}


def test_entities_are_limited_too(pipeline: Any, make: Any) -> None:
    one = limited(pipeline, max_entities=30)
    one.take(*(make.event(gpu=f"g{n}", id=f"{n}") for n in range(25)))
    one.take(*(make.event(gpu=f"g{n}", id=f"{n}-b", at=make.T0 + 30) for n in range(20, 50)))
    assert one.fates() == {("aggregated", ""): 35, ("quarantined", "too_many_entities"): 20}
    assert one.sql("SELECT count(*) FROM entities_gpu") == [(30,)]
    assert {e for (e,) in one.sql("SELECT entity FROM entities_gpu")} == {f"g{n}" for n in range(30)}


def test_the_decoder_does_not_remember_ever_new_series(pipeline: Any, make: Any) -> None:
    one = limited(pipeline, max_series=10)
    met = one.processor._decoders["telemetry.gpu"]._met
    for batch in range(8):
        one.take(*gpus(make, range(batch * 15, batch * 15 + 15), at=batch))
        assert met._met.num_rows <= 20 + 15
    assert len(clusters_in(one)) == 10


def test_one_alert_names_topic_dimension_and_a_few_values_until_it_is_quiet(pipeline: Any, make: Any) -> None:
    one = limited(pipeline, max_series=10)
    for batch in range(3):
        one.take(*gpus(make, range(batch * 20, batch * 20 + 20), at=batch))
    health = Health((), Watermarks(one.catalog), {}, stalled_after=30, give_up_after=180, steady=0.0)
    alerts = PipelineAlerts()
    _, [fired] = health.look_at_growth(alerts, one.processor.growth, 1.0, make.T0)
    assert (fired.kind, fired.state.alertname) == ("firing", "TelemetryCardinality")
    assert dict(fired.state.by) == {"topic": "telemetry.gpu"}
    said = fired.state.annotations["description"]
    assert (
        "telemetry.gpu" in said
        and "max_series" in said
        and "cluster has ever new values, such as c40, c41" in said
    )
    assert health.look_at_growth(alerts, one.processor.growth, 2.0, make.T0 + 1) == ({}, [])
    _, [over] = health.look_at_growth(alerts, one.processor.growth, 2.0 + GROWN_FOR, make.T0 + 900)
    assert over.kind == "resolved"
