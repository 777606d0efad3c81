"""`gigawatch dashboards`: Grafana's."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.options import AsJson, print_json


def build(
    out: Annotated[Path, typer.Option(help="The directory of the JSON files.")] = Path("dashboards"),
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit code 1 if a file is not what the code gives.")
    ] = False,
) -> None:
    """Write the dashboards as JSON files, which Grafana's provisioning, its import and `push` take.

    Example: gigawatch dashboards build --check
    """
    from pipeline.dashboards import generate as dashboards

    if check:
        differing = dashboards.differing(out)
        for line in differing:
            typer.echo(f"{line}; mend with: gigawatch dashboards build --out {out}", err=True)
        raise typer.Exit(1 if differing else 0)
    for path in dashboards.write(out):
        typer.echo(str(path))


def push(
    url: Annotated[str, typer.Option(help="Base URL of a Grafana.")],
    token_file: Annotated[
        Path | None,
        typer.Option(help="File with a service account token.  [default: the variable GRAFANA_TOKEN]"),
    ] = None,
    datasource: Annotated[
        str | None,
        typer.Option(help="HOST:PORT of the SQL door as Grafana reaches it; makes the data source."),
    ] = None,
    datasource_user: Annotated[str, typer.Option(help="Its user at the door.")] = "grafana",
    datasource_password_file: Annotated[
        Path | None, typer.Option(help="File with that user's password.")
    ] = None,
    datasource_ca: Annotated[
        Path | None, typer.Option(help="Certificate (PEM) that the door is checked by.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would change, and change nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Folder, data source and dashboards into an existing Grafana; a second push changes nothing.

    Example: gigawatch dashboards push --url https://grafana.example --token-file grafana-token --dry-run
    """
    from pipeline.dashboards import push as pushing
    from pipeline.dashboards.generate import documents
    from pipeline.settings import read_secret

    token = pushing.token_from(token_file, os.environ.get(pushing.TOKEN_VARIABLE))
    source = None
    if datasource is not None:
        password, certificate = (
            read_secret(f) if f else None for f in (datasource_password_file, datasource_ca)
        )
        source = pushing.DataSource(datasource, datasource_user, password, certificate)
    changes = pushing.plan(pushing.Grafana(url, token), documents(), source)
    done = changes if dry_run else pushing.push(changes)
    if as_json:
        return print_json(
            [{"what": c.what, "outcome": c.outcome, "diff": c.diff if dry_run else []} for c in done]
        )
    for change in done:
        typer.echo(f"{change.what}: {change.outcome}")
        for line in change.diff if dry_run else ():
            typer.echo(f"  {line}")
