"""The raw rows of a delta, in segments: what they say is what the ledger's roll-ups say."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.catalog import Catalog
from pipeline.ledger.stamped import stamped_rows
from pipeline.views.published import raw_table

DIMENSIONS = "provider, region, site, cluster, sku"
BY_SEGMENT = (
    f"SELECT {DIMENSIONS}, time_bucket(INTERVAL 10 SECOND, time) AS start, known_from, count(*) AS samples, "
    "round(sum(power_watts) * 1000)::BIGINT AS milliwatts FROM ({rows}) GROUP BY ALL ORDER BY ALL"
)
BY_LEDGER = (
    f"SELECT {DIMENSIONS}, window_start, known_from, sum(samples)::BIGINT, sum(power_watts_sum)::BIGINT "
    "FROM partials_gpu_10s JOIN series_gpu USING (series) GROUP BY ALL ORDER BY ALL"
)


def message(make: Any, kind: str, cluster: str, id: str, at: float) -> Any:
    """A plain sample, one that the slow path reads, one with bad neighbours; all of the same few series."""
    options = {"id": id, "at": at, "appended": max(at, make.T0 + 60), "cluster": cluster}
    if kind == "array":
        good = {**make.SAMPLES["telemetry.gpu"], "cluster": cluster}
        bad = {**good, "region": 7}
        return make.event(**options, data=[{**good, "gpu": "a"}, bad, {**good, "gpu": "b"}])
    if kind == "escaped":
        return make.event(**options, note="a\nb")
    return make.event(**options)


@settings(max_examples=25, suppress_health_check=list(HealthCheck))
@given(
    sent=st.lists(
        st.tuples(
            st.sampled_from(["plain", "plain", "escaped", "array"]),
            st.sampled_from(["c1", "é-2", "c'3"]),
            st.sampled_from(["same", *"123456789"]),
            st.integers(0, 45),
        ),
        min_size=6,
        max_size=30,
    ),
    cut=st.integers(1, 5),
)
def test_segments_hold_the_rows_that_the_roll_ups_count_and_the_instant_from_which_they_do(
    catalog: Catalog, make: Any, tmp_path_factory: pytest.TempPathFactory, sent: Any, cut: int
) -> None:
    pipeline = make.Pipeline(tmp_path_factory.mktemp("segments"), catalog)
    try:
        records = [message(make, kind, cluster, id, make.T0 + at) for kind, cluster, id, at in sent]
        for piece in (records[:cut], records[cut:]):  # the later piece has late rows
            pipeline.take(*piece, watermarks={"telemetry.gpu": make.T0 + 25})
        files = [
            (pipeline.data / "segments" / name, known_from)
            for name, known_from in pipeline.sql(
                "SELECT segment, known_from FROM segments WHERE topic = 'telemetry.gpu'"
            )
        ]
        con = pipeline.ledger.con
        rows = stamped_rows(files, raw_table(catalog.by_view("gpu")))
        found = con.execute(BY_SEGMENT.replace("{rows}", rows)).fetchall()
        assert found == con.execute(BY_LEDGER).fetchall()
        counted = con.execute("SELECT topic, rows, min_time, max_time FROM segments").fetchall()
        assert sum(rows for topic, rows, *_ in counted if topic == "telemetry.gpu") == sum(
            r[7] for r in found
        )
        assert all(low <= high for *_, low, high in counted)
    finally:
        pipeline.close()
