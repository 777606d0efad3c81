"""Names of topics, views and columns: which may be one, which are taken, and which two types may not share."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.catalog.expect import expect, listed, matches
from pipeline.errors import SchemaError

if TYPE_CHECKING:
    from pipeline.catalog.schema import EventType

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
TOPIC = re.compile(r"[A-Za-z0-9._-]{1,200}")
OWN_COLUMNS = frozenset(
    """
    block bucket content date entity_idx filename gpus headers id identity idx interval known_from last_time measure n
    observed ok part quoted rank record_time row samples series source time value window_start x_columns
    """.split()  # noqa: SIM905 - a line for each word would bury the rest
)
"""Columns of samples, partial roll-ups, bit sets and views, which share a relation with the schema's."""
OWN_VIEWS = frozenset(
    """
    alerts alerts_now alerts_open bills capacity charges clauses data_age energy_mix fates gpu_hours health power
    quarantine queue_wait readings set_aside spend standing windows
    """.split()  # noqa: SIM905 - a line for each word would bury the rest
)
AGGREGATES = frozenset(("count", "last", "max", "mean", "min", "p50", "p95", "p99", "sum", "time"))
KEYWORDS = frozenset(
    """
    all analyse analyze and anti any array as asc asof asymmetric at authorization binary both by case cast
    check collate collation column columns concurrently constraint create cross default deferrable desc
    describe distinct do else end except false fetch for foreign freeze from full generated glob group
    having ilike in initially inner intersect into is isnull join lambda lateral leading left like limit map
    natural not notnull null offset on only or order outer overlaps pivot pivot_longer pivot_wider placing
    positional primary qualify references returning right select semi show similar some struct summarize
    symmetric table tablesample then to trailing true try_cast tuple union unique unpack unpivot using
    variadic verbose when where window with
    """.split()  # noqa: SIM905 - a line for each word would bury the rest
)
"""What DuckDB does not take for a column's name without quotes: its keywords reserved, and of types and functions."""


def check_together(directory: Path, types: Sequence[EventType]) -> None:
    """Raises SchemaError when two event types would write the same topic, tables or views."""
    for attribute in ("topic", "view"):
        values = [getattr(t, attribute).lower() for t in types]
        for value in sorted(values):
            if values.count(value) > 1:
                raise SchemaError(
                    f"{directory}: two schema files share the {attribute} {value!r}; give each its own"
                )
    views = {t.view.lower() for t in types}
    for view in sorted(views):
        base, _, width = view.rpartition("_")
        if base in views and width in ("10s", "1m", "15m", "1h", "1d"):
            raise SchemaError(
                f"{directory}: x-view: found {view!r}; expected another name: it is a roll-up of {base!r}"
            )
    for identity, closes in (("retained", False), ("delivery", True)):
        found = [t.topic for t in types if t.retained and t.closes == closes]
        if len(found) > 1:
            raise SchemaError(
                f"{directory}: x-identity: found {identity!r} for {listed(found)}; expected one such type at most, "
                "for the ledger keeps one bill"
            )
    names = {t.closes: t.delivery for t in types if t.delivery}
    if names.get(True) != names.get(False):
        raise SchemaError(
            f"{directory}: x-delivery: found {names.get(False)!r} of the charges and {names.get(True)!r} of what closes a "
            "delivery; expected the same name of both, or neither"
        )


def check_names(path: Path, properties: Mapping[str, Any], measures: Iterable[str]) -> None:
    """Raises SchemaError for a property that SQL or a roll-up could not have as a column."""
    measured_names = set(measures)
    seen: dict[str, str] = {}
    for name in properties:
        expected = "a plain name of letters, digits and _, at most 63 long"
        expect(matches(NAME, name), path, "a property's name", name, expected)
        own = name.lower() not in OWN_COLUMNS and name.lower() not in KEYWORDS
        expect(own, path, "a property's name", name, "another name: this one is SQL's or our own")
        other = seen.setdefault(name.lower(), name)
        expect(
            other == name, path, "a property's name", name, f"a name that is not {other!r} in another case"
        )
    for name in properties:
        measured, _, aggregate = name.lower().rpartition("_")
        clash = aggregate in AGGREGATES and measured in seen and seen[measured] in measured_names
        expected = "another name: roll-ups call an aggregate so"
        expect(not clash, path, "a property's name", name, expected)
