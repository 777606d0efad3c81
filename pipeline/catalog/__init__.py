"""Event types, read from `schemas/`: what a topic carries and how each measure rolls up.

Decoder, roll-up SQL, history columns, views and topics all follow from the `EventType` values that
`load` returns, so that a new event type is one new schema file and no code.
"""

from __future__ import annotations

from pipeline.catalog.schema import (
    MONEY,
    MONEY_DECIMALS,
    MONEY_WHOLE_DIGITS,
    Catalog,
    EventType,
    Field,
    Frozen,
    Inside,
    Mark,
    MarkTest,
    Measure,
    Revision,
    load,
    schema_directory,
)

__all__ = [
    "MONEY",
    "MONEY_DECIMALS",
    "MONEY_WHOLE_DIGITS",
    "Catalog",
    "EventType",
    "Field",
    "Frozen",
    "Inside",
    "Mark",
    "MarkTest",
    "Measure",
    "Revision",
    "load",
    "schema_directory",
]
