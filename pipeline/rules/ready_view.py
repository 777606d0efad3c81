"""What a ready view is, and what several of them share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

DATE = "date"
"""The column of a dated table's view that a file has in its path alone."""
DIMENSIONS = (
    "provider", "region", "site", "cluster", "sku", "nvlink_domain", "data_class", "feed", "queue", "workload_class",
)  # fmt: skip
"""Those that clauses are split by; each a column, NULL where a clause is not split by it."""
OF_CLAUSE: Mapping[str, str] = {
    "contract": "Contract, by its id",
    "clause": "Clause, by its id",
    **{
        name: f"The {name.replace('_', ' ')} that the reading is of; NULL: the clause is not split by it"
        for name in DIMENSIONS
    },
}
DATED: Mapping[str, str] = {
    DATE: "Day of the time, UTC: by a condition on it the files of other days are not opened"
}
SPLIT = ", ".join(f"by_values ->> '$.{name}' AS {name}" for name in DIMENSIONS)
_ABOUT = ", ".join(f"'$.{name}'" for name in ("topic", *DIMENSIONS, "partition"))
ABOUT = f"array_to_string([v for v in json_extract_string(labels, [{_ABOUT}]) if v IS NOT NULL], ' / ')"
"""What an alert is about, from its labels, in words."""
NOW = "make_timestamp(epoch_us(now()))"


@dataclass(frozen=True, slots=True)
class ReadyView:
    """`columns`: name → what it says, in the order of `select`; `needs`: the event types that it reads, by view."""

    name: str
    comment: str
    columns: Mapping[str, str]
    select: str
    needs: frozenset[str] = frozenset()
