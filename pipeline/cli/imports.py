"""`gigawatch import`: what others keep in files, to Kafka."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.options import AsJson, Bootstrap, Config, Schemas, print_json
from pipeline.errors import SettingsError
from pipeline.settings import load_settings

if TYPE_CHECKING:
    from pipeline.collect.bill_import import OnProgress


def focus(
    files: Annotated[
        list[str],
        typer.Argument(
            help="Files, directories or s3:// URLs: the parts of one delivery.", metavar="FILE|DIR|s3://…"
        ),
    ],
    issuer: Annotated[
        str | None,
        typer.Option(help="Who bills.  [default: ServiceProviderName or ProviderName of each row]"),
    ] = None,
    export: Annotated[
        str | None,
        typer.Option(help="Which of the issuer's exports it is.  [default: BillingAccountId of each row]"),
    ] = None,
    rates: Annotated[
        Path | None,
        typer.Option(help="YAML with the contract's rates, for a bill that has quantities alone."),
    ] = None,
    issued: Annotated[
        str | None, typer.Option(help="When it was delivered, such as 2026-12-05T06:00:00Z.  [default: now]")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Report, and send nothing: needs no Kafka.")
    ] = False,
    as_json: AsJson = False,
    bootstrap: Bootstrap = None,
    schemas: Schemas = None,
    config: Config = None,
) -> None:
    """A bill: FOCUS 1.0 to 1.4 (CSV, also .gz, or Parquet), or Google's billing export (JSON or Parquet).

    It is a delivery for each issuer, export and billing period, and takes the place of the one before.  The same files
    again change nothing.  Exit code 1 when a cell is refused: then nothing is sent.

    Examples:

      gigawatch import focus november/ --dry-run

      gigawatch import focus s3://bills/halcyon/2026-11/ --bootstrap kafka:9092
    """
    from pipeline.catalog import load
    from pipeline.collect.bill_import import Bill, BillOptions
    from pipeline.collect.bill_report import in_words
    from pipeline.collect.bill_sending import send

    settings = load_settings(config, bootstrap=bootstrap, schemas=schemas)
    options = BillOptions(issuer, export, rates, _time(issued))
    with _progress() as progress, Bill(files, load(settings.schemas), options, progress) as bill:
        report = bill.report
        if sending := not (dry_run or report.refused_cells):
            send(bill, settings.bootstrap, settings.kafka_client(), options.issued, progress)
    if as_json:
        print_json(report.document(sending))
    else:
        for line in in_words(report):
            typer.echo(line)
        typer.echo(_ended(report.refused_rows, sending))
    if report.refused_cells:
        raise typer.Exit(1)


def _ended(refused: int, sent: bool) -> str:
    if refused:
        rows = "1 row is" if refused == 1 else f"{refused:,} rows are"
        return f"{rows} refused, so nothing is sent: mend what is listed, or ask who exported it"
    return "sent" if sent else "nothing was sent: this was a dry run"


def _time(text: str | None) -> datetime | None:
    from pipeline.formats.times import read_time

    if text is None:
        return None
    found = read_time(text, "UTC")
    if not isinstance(found, datetime):
        raise SettingsError(f"--issued: found {text!r}, expected a time such as 2026-12-05T06:00:00Z")
    return found.replace(tzinfo=UTC)


@contextmanager
def _progress() -> Iterator[OnProgress]:
    """A bar on a terminal; nothing elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    if not sys.stderr.isatty():
        yield lambda *_: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        tasks = {what: bar.add_task(what, visible=False, total=None) for what in ("files", "rows")}
        yield lambda what, done, total: bar.update(tasks[what], completed=done, total=total, visible=True)
