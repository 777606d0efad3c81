"""All dashboards as files: classic JSON, which every Grafana from 8 to 13 loads, the same bytes from the same code."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard

from pipeline.dashboards import (
    capacity_power,
    clause_page,
    energy_carbon,
    noc_overview,
    pipeline_health,
    sla_queues,
    spend_burndown,
)

Document = dict[str, Any]
MAKERS: tuple[Callable[[], dashboard.Dashboard], ...] = (
    noc_overview.noc,
    capacity_power.capacity,
    sla_queues.queues,
    spend_burndown.spend,
    energy_carbon.energy,
    pipeline_health.health,
    clause_page.clause,
)
SURPLUS: tuple[tuple[str, Any], ...] = (
    # From Grafana 12 on it hides links and annotations in a menu, and nobody on call looks there.
    ("placement", "inControlsMenu"),
    # Tables lost it in Grafana 12.2; variables that are no interval never had these.
    ("footer", {"countRows": False, "reducer": [], "show": False}),
    ("auto", False),
    ("auto_count", 30),
    ("auto_min", "10s"),
)
"""What the SDK gives everything of a kind, and we do not want or Grafana's own schema does not know."""


def documents() -> list[Document]:
    """Every dashboard as Grafana takes it, the first page first."""
    return [_document(make()) for make in MAKERS]


def files() -> dict[str, str]:
    """File name → text, as `dashboards/` holds them."""
    return {
        f"{document['uid'].removeprefix('gigawatch-')}.json": json.dumps(
            document, indent=2, sort_keys=True, ensure_ascii=False
        )
        + "\n"
        for document in documents()
    }


def write(folder: Path) -> list[Path]:
    """Writes them into a directory, which is made where it is not; gives the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, text in files().items():
        paths.append(folder / name)
        paths[-1].write_text(text, "utf-8")
    return paths


def differing(folder: Path) -> list[str]:
    """What in a directory is not what the code gives, a line for each file: missing, different, or of no dashboard."""
    found = []
    wanted = files()
    for name, text in wanted.items():
        path = folder / name
        if not path.is_file():
            found.append(f"{path}: is missing")
        elif path.read_text("utf-8") != text:
            found.append(f"{path}: is not what the code gives")
    left_over = sorted(path for path in folder.glob("*.json") if path.name not in wanted)
    return [*found, *(f"{path}: is of no dashboard" for path in left_over)]


def _document(model: dashboard.Dashboard) -> Document:
    document: Document = json.loads(json.dumps(model, cls=JSONEncoder))
    return dict(_kept(document))


def _kept(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _kept(v) for k, v in value.items() if (k, v) not in SURPLUS}
    return [_kept(each) for each in value] if isinstance(value, list) else value
