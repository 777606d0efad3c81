"""Options that several commands take."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer


class Level(StrEnum):
    """Log levels."""

    debug = "debug"
    info = "info"
    warning = "warning"
    error = "error"


class OutputFormat(StrEnum):
    """Forms of a query's result."""

    table = "table"
    csv = "csv"
    json = "json"


Bootstrap = Annotated[
    str | None, typer.Option(help="Kafka brokers, HOST:PORT[,HOST:PORT…].  [default: 127.0.0.1:9092]")
]
Data = Annotated[
    Path | None, typer.Option(help="The data directory of a pipeline.  [default: gigawatch-data]")
]
Config = Annotated[Path | None, typer.Option(help="TOML file with any of the settings.")]
Schemas = Annotated[
    Path | None, typer.Option(help="Directory of schema files, in place of the shipped ones.")
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document, for scripts.")]
WireFormat = Annotated[
    str | None, typer.Option("--format", help="The wire format.  [default: the mapping's first]")
]
Constants = Annotated[list[str] | None, typer.Option(help="What the source does not say, NAME=VALUE.")]
FromLabels = Annotated[
    list[str] | None, typer.Option(help="A field from a label, NAME=LABEL, before the mapping's own.")
]
PublicUrl = Annotated[
    str | None, typer.Option(help="The board as people open it; every alert links to its card there.")
]
AlertmanagerExternalUrl = Annotated[
    str | None, typer.Option(help="Alertmanager as people open it.  [default: --alertmanager]")
]
GrafanaUrl = Annotated[
    str | None, typer.Option(help="Grafana as people open it; the board links to a clause's dashboard there.")
]


def print_json(document: Any) -> None:
    """One JSON document on standard output; nothing in it can steer a terminal."""
    from pipeline.history.query import as_json

    typer.echo(as_json(document, indent=1))
