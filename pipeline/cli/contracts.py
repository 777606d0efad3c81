"""`gigawatch contract`: contracts, before they run."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.options import AsJson, Schemas, print_json
from pipeline.settings import load_settings


def check(
    files: Annotated[list[Path], typer.Argument(help="Contract files, or directories of them.")],
    schemas: Schemas = None,
    as_json: AsJson = False,
) -> None:
    """Every fault of contracts that are to run together, each with its place; exit code 2 if there is one.

    Example: gigawatch contract check contracts/
    """
    from pipeline import catalog
    from pipeline.clauses import check, load_all
    from pipeline.contract.loader import dimensions_of
    from pipeline.contract.summary import as_document, summary

    dimensions = dimensions_of(catalog.load(load_settings(None, schemas=schemas).schemas))
    faults, now = check(files, dimensions), int(time.time())
    good = [] if faults else [one for file in files for one in load_all(file, dimensions)]
    if as_json:
        print_json({"faults": [asdict(f) for f in faults], "contracts": [as_document(c, now) for c in good]})
        raise typer.Exit(2 if faults else 0)
    if faults:
        for fault in faults:
            typer.echo(str(fault), err=True)
        count = f"{len(faults)} fault{'' if len(faults) == 1 else 's'}"
        typer.echo(f"{count}: a contract is taken as a whole, so nothing of it would run", err=True)
        raise typer.Exit(2)
    for contract in good:
        typer.echo("\n".join(summary(contract, now)))
