"""`gigawatch map`: what sources have, and what becomes of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.options import AsJson, Constants, FromLabels, Schemas, WireFormat, print_json

if TYPE_CHECKING:
    from pipeline.catalog import Catalog
    from pipeline.mappings.trial import Trial

Mapping = Annotated[str, typer.Argument(help="A shipped mapping's name, or the path of a file.")]


def list_(as_json: AsJson = False) -> None:
    """The mappings that come with the program, with the versions that each knows, and the wire formats.

    Example: gigawatch map list
    """
    from pipeline.formats.registry import point_formats
    from pipeline.mappings.mapping_file import load_source_mapping, shipped

    mappings = [load_source_mapping(name, _catalog(None)) for name in shipped()]
    if as_json:
        print_json(
            {
                "mappings": [
                    m.model_dump(include={"mapping", "source", "text", "formats"}) for m in mappings
                ],
                "formats": [{"format": f.name, "says": f.says} for f in point_formats()],
            }
        )
        return
    for m in mappings:
        typer.echo(f"{m.mapping:<20} {m.source}\n{'':<20} {m.text}")
    typer.echo("")
    for f in point_formats():
        typer.echo(f"{f.name:<26} {f.says}")


def check(
    mappings: Annotated[list[str], typer.Argument(help="Mapping files, or names of shipped mappings.")],
    schemas: Schemas = None,
    as_json: AsJson = False,
) -> None:
    """Every fault of mappings, each with its place; exit code 2 if there is one.

    Example: gigawatch map check our-meters.yaml
    """
    from dataclasses import asdict

    from pipeline.mappings.mapping_file import check_mapping

    catalog = _catalog(schemas)
    faults = [fault for name in mappings for fault in check_mapping(name, catalog)[1]]
    if as_json:
        print_json({"faults": [asdict(fault) for fault in faults]})
    else:
        for fault in faults:
            typer.echo(str(fault), err=True)
        if not faults:
            typer.echo(f"{len(mappings)} mapping{'' if len(mappings) == 1 else 's'}: no fault")
    if faults:
        raise typer.Exit(2)


def explain(mapping: Mapping, schemas: Schemas = None, as_json: AsJson = False) -> None:
    """What a mapping reads: which metric, in which unit, becomes which measure; which label which field.

    Example: gigawatch map explain dcgm
    """
    from pipeline.mappings.mapping_file import load_source_mapping
    from pipeline.mappings.trial import explained

    found = load_source_mapping(mapping, _catalog(schemas))
    if as_json:
        print_json(found.model_dump(exclude_defaults=True, mode="json"))
    else:
        typer.echo("\n".join(explained(found, _catalog(schemas))))


def try_(
    mapping: Mapping,
    files: Annotated[
        list[Path], typer.Argument(help="What a source sent: scrapes or messages, in the order they came.")
    ],
    wire: WireFormat = None,
    constant: Constants = None,
    from_label: FromLabels = None,
    schemas: Schemas = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="The `data` of each sample as a line of JSON, and nothing else.")
    ] = False,
) -> None:
    """What becomes of a scrape or message, field by field, with what is ignored or set aside and why.

    Of several files histograms are the differences from one to the next.

    Example: gigawatch map try dcgm node-0042.prom --constant region=eu-west
    """
    from pipeline.mappings.mapping_file import load_source_mapping
    from pipeline.mappings.trial import given_of, tried

    catalog = _catalog(schemas)
    found = load_source_mapping(mapping, catalog)
    given = given_of(constant or [], from_label or [])
    trial = tried(found, [(str(f), _bytes(f)) for f in files], wire or found.formats[0], catalog, given)
    if as_json:
        _print_lines(trial)
    else:
        typer.echo("\n".join(trial.lines()))


def _print_lines(trial: Trial) -> None:
    import json

    for data in trial.documents():
        typer.echo(json.dumps(data, ensure_ascii=True))
    for line in trial.remarks():
        typer.echo(line, err=True)


def _bytes(file: Path) -> bytes:
    from pipeline.errors import MappingError

    try:
        return file.read_bytes()
    except OSError as error:
        what = (error.strerror or str(error)).lower()
        raise MappingError(f"{file}: found {what}, expected a file that can be read") from error


def _catalog(schemas: Any) -> Catalog:
    from pipeline import catalog
    from pipeline.settings import load_settings

    return catalog.load(load_settings(None, schemas=schemas).schemas)
