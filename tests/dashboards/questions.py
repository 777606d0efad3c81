"""What a dashboard asks, read from its JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def panel_queries(document: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """(dashboard uid, panel title, ref, SQL with Grafana's macros) of every panel's every question, in order."""
    return [
        (document["uid"], panel["title"], target["refId"], target["rawSql"])
        for panel in document["panels"]
        for target in panel.get("targets", ())
    ]


def texts(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(what it is, SQL) of everything else that asks: annotations and variables."""
    for annotation in document["annotations"]["list"]:
        yield f"annotation {annotation['name']}", annotation["target"]["rawSql"]
    for variable in document["templating"]["list"]:
        yield f"variable {variable['name']}", variable["query"]
