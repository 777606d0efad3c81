"""`gigawatch contract`: contracts, before they run."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.options import Schemas
from pipeline.settings import load_settings


def check(
    files: Annotated[list[Path], typer.Argument(help="Contract files, or directories of them.")],
    schemas: Schemas = None,
) -> None:
    """Every fault of contracts that are to run together, each with its place; exit code 2 if there is one.

    Example: gigawatch contract check contracts/
    """
    from pipeline import catalog
    from pipeline.contract.loader import check, dimensions_of, load_all
    from pipeline.contract.summary import summary

    dimensions = dimensions_of(catalog.load(load_settings(None, schemas=schemas).schemas))
    faults = check(files, dimensions)
    if faults:
        for fault in faults:
            typer.echo(str(fault), err=True)
        count = f"{len(faults)} fault{'' if len(faults) == 1 else 's'}"
        typer.echo(f"{count}: a contract is taken as a whole, so nothing of it would run", err=True)
        raise typer.Exit(2)
    now = int(time.time())
    for contract in [one for file in files for one in load_all(file, dimensions)]:
        typer.echo("\n".join(summary(contract, now)))
