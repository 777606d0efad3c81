"""Base-2 exponential histograms of waits and latencies, scale 5 (as OpenTelemetry's exponential histogram).

Bucket b holds values in `(2^(b/32), 2^((b+1)/32)]`: a width of 2.2 %.  Values up to 1 ms share the zero bucket.
"""

from __future__ import annotations

SCALE = 32
"""Buckets in a doubling: 2^5."""
ZERO_BUCKET = -(2**31)
ZERO_SECONDS = 0.001


def bucket_sql(value: str) -> str:
    """SQL for the bucket of a DOUBLE expression."""
    index = f"ceil(log2({value}) * {SCALE})::INTEGER - 1"
    return f"CASE WHEN {value} <= {ZERO_SECONDS} THEN {ZERO_BUCKET} ELSE {index} END"


BUCKET_KEY = "series, measure, bucket"
VALUE_KEY = f"{BUCKET_KEY}, least, greatest"
MERGE_BUCKET = "min(least) AS least, max(greatest) AS greatest, sum(n)::BIGINT AS n"


def lower_bound_sql(bucket: str) -> str:
    """SQL for what every value of a bucket is above, or 0."""
    return f"CASE WHEN {bucket} = {ZERO_BUCKET} THEN 0.0 ELSE pow(2.0, {bucket} / {SCALE}.0) END"


def upper_bound_sql(bucket: str) -> str:
    """SQL for the upper bound of a bucket."""
    return f"CASE WHEN {bucket} = {ZERO_BUCKET} THEN {ZERO_SECONDS} ELSE pow(2.0, ({bucket} + 1) / {SCALE}.0) END"
