"""What can be asked of a pipeline, beside it or after it: how it stands, what is missing, its history."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.options import AsJson, Bootstrap, Config, Data, OutputFormat, Schemas, Sources, sources_of
from pipeline.errors import SettingsError
from pipeline.settings import load_settings


def status(
    data: Data = None,
    bootstrap: Annotated[
        str | None, typer.Option(help="Kafka to ask for the ends.  [default: the pipeline's own]")
    ] = None,
    as_json: AsJson = False,
    check: Annotated[
        bool, typer.Option("--check", help="One line, and exit code 1 unless it runs and is well.")
    ] = False,
    config: Config = None,
) -> None:
    """How a pipeline stands: offsets, lag, fates, standing, firing alerts; beside it, or after it has ended.

    Example: gigawatch status --data gigawatch-demo
    """
    from rich.text import Text

    from pipeline.history.query import as_json as escaped
    from pipeline.serve import status_report as outside
    from pipeline.serve.terminal import status_page, stdout

    settings = load_settings(config, data=data, bootstrap=bootstrap)
    if check:
        well, line = outside.well(settings.data, time.time())
        typer.echo(line, err=not well)
        raise typer.Exit(0 if well else 1)
    found, state = outside.status_now(settings, asked=bootstrap)
    if as_json:
        typer.echo(escaped(outside.as_json(found, state), indent=1))
        return
    stdout().print(status_page(found, [Text(line) for line in outside.head(settings.data, found, state)]))


def doctor(
    bootstrap: Bootstrap = None,
    contract: Annotated[
        Path | None, typer.Option(help="The contract file or directory that is to run.")
    ] = None,
    data: Data = None,
    alertmanager: Annotated[str | None, typer.Option(help="Base URL of an Alertmanager.")] = None,
    webhook: Annotated[
        str | None, typer.Option(help="URL that is to get the alerts; it is not called.")
    ] = None,
    webhook_token_file: Annotated[
        Path | None, typer.Option(help="File with the bearer token for the webhook.")
    ] = None,
    grafana: Annotated[str | None, typer.Option(help="Base URL of a Grafana.")] = None,
    source: Sources = None,
    schemas: Schemas = None,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Is everything there that `run` needs?  Looks, changes nothing; exit code 1 if anything fails.

    Versions, ports, disk, contract, data directory, broker, topics, clock, and those who are called.  It takes
    the settings of `run`, so that it looks at what will run.

    Example: gigawatch doctor --bootstrap kafka:9092 --contract contracts/ --alertmanager http://127.0.0.1:9093
    """
    from pipeline.doctor.checks import checks, examine
    from pipeline.doctor.findings import as_document, page, worst
    from pipeline.history.query import as_json as escaped
    from pipeline.serve.terminal import stdout

    settings = load_settings(
        config, bootstrap=bootstrap, contract=contract, data=data, alertmanager=alertmanager, webhook=webhook,
        webhook_token_file=webhook_token_file, sources=sources_of(source), schemas=schemas,
    )  # fmt: skip
    findings = list(examine(checks(settings, grafana)))
    if as_json:
        typer.echo(escaped(as_document(findings), indent=1))
    else:
        stdout().print(page(findings))
    raise typer.Exit(1 if worst(findings) == "fail" else 0)


def sql(
    query: Annotated[
        str | None, typer.Argument(help="One SELECT; without it, read from standard input.")
    ] = None,
    form: Annotated[
        OutputFormat, typer.Option("--format", help="How rows are written.")
    ] = OutputFormat.table,
    data: Data = None,
    schemas: Schemas = None,
    config: Config = None,
) -> None:
    """Ask the published history; works beside a running pipeline.

    Views: gpu, queue, energy, billing, deliveries, quarantine (raw); gpu, queue, energy and billing with
    _10s, _1m, _15m, _1h, _1d (roll-ups); alerts, standing, fates, set_aside, readings, health, clauses, windows; and
    ready-made answers: capacity, power, queue_wait, spend, charges, bills, gpu_hours, energy_mix, alerts_open, data_age.
    Times are UTC.

    Example: gigawatch sql "SELECT region, max(gpus) FROM gpu_1m GROUP BY ALL" --format csv
    """
    from pipeline import catalog
    from pipeline.errors import QueryError
    from pipeline.history.query import ask, may_read_comments, nothing_yet, open_views, render

    settings = load_settings(config, data=data, schemas=schemas)
    if query is None:
        if sys.stdin.isatty():
            raise SettingsError(
                "sql: found no query, expected one SELECT as an argument or on standard input"
            )
        query = sys.stdin.read()
    types = catalog.load(settings.schemas)
    if (why := nothing_yet(settings.data, types)) is not None:
        raise QueryError(why)
    with open_views(settings.data, types, comments=may_read_comments(query)) as con:
        for piece in render(ask(con, query), form.value, sys.stdout.isatty()):
            sys.stdout.write(piece)
