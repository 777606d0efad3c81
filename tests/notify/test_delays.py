"""Delays as a status tells them."""

from __future__ import annotations

import pytest

from pipeline.notify.delays import quantiles


@pytest.mark.parametrize(
    ("values", "p50", "p99"),
    [
        ([], None, None),
        ([3.0], 3, 3),
        ([2.0, 1.0], 1, 2),
        (range(100, 0, -1), 50, 99),
        (range(1, 202), 101, 199),
    ],
)
def test_a_quantile_is_the_value_at_its_rank(values: list[float], p50: float, p99: float) -> None:
    assert quantiles(values) == {"p50": p50, "p99": p99}
