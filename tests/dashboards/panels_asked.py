"""The panels of all dashboards, and what a door answers to them over the range that their dashboard opens on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tests.dashboards.questions import texts
from tests.dashboards.test_dashboards import ALL, ask, expanded, opened, table

__all__ = [
    "ALL",
    "DAY",
    "PANELS",
    "Ask",
    "Panel",
    "answer",
    "ask",
    "expanded",
    "of_type",
    "opened",
    "overrides",
    "table",
    "texts",
]
Ask = Callable[[str], tuple[list[str], list[tuple[Any, ...]]]]
Panel = Mapping[str, Any]
PANELS = [(uid, panel) for uid, document in ALL.items() for panel in document["panels"]]
DAY = 86_400.0


def of_type(*types: str) -> Any:
    """Parametrizes a test by every panel of these types."""
    chosen = [(uid, panel) for uid, panel in PANELS if panel["type"] in types]
    return pytest.mark.parametrize(
        ("uid", "panel"), chosen, ids=[f"{u}: {panel['title']}" for u, panel in chosen]
    )


def answer(
    ask: Ask, uid: str, panel: Panel, end: float, ref: str = "A"
) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Columns and rows of a panel over the range that its dashboard opens on."""
    back = {"now-1h": 3600.0, "now-6h": 6 * 3600.0, "now-30d": 30 * DAY}[ALL[uid]["time"]["from"]]
    [sql] = [target["rawSql"] for target in panel["targets"] if target["refId"] == ref]
    ahead = 30 * DAY if panel.get("timeFrom") else 0.0
    return ask(expanded(uid, sql, end - back, end + ahead))


def overrides(panel: Panel) -> dict[str, dict[str, Any]]:
    """Name of a field → its settings."""
    found: dict[str, dict[str, Any]] = {}
    for each in panel["fieldConfig"]["overrides"]:
        if each["matcher"]["id"] == "byName":
            found.setdefault(each["matcher"]["options"], {}).update(
                {p["id"]: p["value"] for p in each["properties"]}
            )
    return found
