"""Options that several commands take."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.errors import SettingsError


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
Sources = Annotated[
    list[str] | None,
    typer.Option(
        "--source",
        help="A topic of what you have: topic=NAME,format=FORMAT,mapping=NAME and constants, NAME=VALUE each; "
        "from_label.NAME=LABEL.  Repeatable; in place of the file's.",
    ),
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


OF_SOURCE = ("topic", "format", "mapping")
"""What `--source` names; any other name is a constant."""


def sources_of(texts: list[str] | None) -> list[dict[str, Any]] | None:
    """`--source` as the settings have [[sources]]; None where it is not given.

    >>> sources_of(["topic=otlp_metrics,format=otlp_proto,mapping=dcgm,region=eu-west,from_label.sku=modelName"])
    [{'topic': 'otlp_metrics', 'format': 'otlp_proto', 'mapping': ['dcgm'], 'constants': {'region': 'eu-west'}, \
'from_label': {'sku': 'modelName'}}]

    Raises SettingsError that says where, what was found and what was expected.
    """
    return [_source(f"--source {text!r}", text) for text in texts] if texts else None


def _source(where: str, text: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for part in text.split(","):
        name, equals, value = (each.strip() for each in part.partition("="))
        group, dot, inner = name.partition(".")
        if not equals or not name or not value or (dot and not inner):
            raise SettingsError(f"{where}: found {part!r}, expected NAME=VALUE, with commas between them")
        if dot and group not in ("constants", "from_label"):
            raise SettingsError(
                f"{where}: found {name!r}, expected constants.NAME or from_label.NAME; a table `where` stands in a "
                "file (--config)"
            )
        if name == "mapping":
            found.setdefault(name, []).append(value)
            continue
        into, key = (
            (found, name)
            if name in OF_SOURCE
            else (found.setdefault(group if dot else "constants", {}), inner or name)
        )
        if key in into:
            raise SettingsError(f"{where}: found {name} twice, expected it once")
        into[key] = value
    if absent := [name for name in ("topic", "format") if name not in found]:
        raise SettingsError(
            f"{where}: found no {' and no '.join(absent)}, expected topic=NAME,format=FORMAT and more"
        )
    return found


def print_json(document: Any) -> None:
    """One JSON document on standard output; nothing in it can steer a terminal."""
    from pipeline.history.query import as_json

    typer.echo(as_json(document, indent=1))
