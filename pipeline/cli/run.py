"""`gigawatch run`: the pipeline itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.options import (
    AlertmanagerExternalUrl,
    Bootstrap,
    Config,
    GrafanaUrl,
    PublicUrl,
    Schemas,
    Sources,
    sources_of,
)
from pipeline.settings import load_settings


def run(
    bootstrap: Bootstrap = None,
    contract: Annotated[
        Path | None, typer.Option(help="A contract file, or a directory of them; a change is taken over.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Where ledger and history live.  [default: gigawatch-data]")
    ] = None,
    alertmanager: Annotated[str | None, typer.Option(help="Base URL of an Alertmanager.")] = None,
    webhook: Annotated[
        str | None, typer.Option(help="URL that gets alerts in the body of Alertmanager's webhooks.")
    ] = None,
    webhook_token_file: Annotated[
        Path | None, typer.Option(help="File with the bearer token for the webhook.")
    ] = None,
    source: Sources = None,
    schemas: Schemas = None,
    seal_every: Annotated[
        float | None, typer.Option(help="Age (s) that published raw rows reach at most.  [default: 300]")
    ] = None,
    door: Annotated[
        str | None, typer.Option(help="HOST:PORT of the SQL door; '' for none.  [default: 127.0.0.1:3306]")
    ] = None,
    board: Annotated[
        str | None, typer.Option(help="HOST:PORT of the board; '' for none.  [default: 127.0.0.1:8420]")
    ] = None,
    public_url: PublicUrl = None,
    alertmanager_external_url: AlertmanagerExternalUrl = None,
    grafana_url: GrafanaUrl = None,
    config: Config = None,
) -> None:
    """The pipeline: against any Kafka, until Ctrl-C or SIGTERM.

    Every setting may also stand in the environment (GIGAWATCH_SEAL_EVERY) or in a TOML file (seal_every = 60);
    the command line counts before the environment, the environment before the file.  TLS and SASL:
    GIGAWATCH_SECURITY_PROTOCOL, _SASL_MECHANISM, _SASL_PLAIN_USERNAME, _SASL_PASSWORD_FILE, _SSL_CAFILE, ….

    Example: gigawatch run --bootstrap kafka:9092 --contract contracts/ --data /var/lib/gigawatch
    """
    settings = load_settings(
        config, bootstrap=bootstrap, contract=contract, data=data, alertmanager=alertmanager, webhook=webhook,
        webhook_token_file=webhook_token_file, sources=sources_of(source), schemas=schemas, seal_every=seal_every,
        door=door, board=board, public_url=public_url, alertmanager_external_url=alertmanager_external_url,
        grafana_url=grafana_url,
    )  # fmt: skip
    from pipeline.app.single import run as run_pipeline

    run_pipeline(settings)
