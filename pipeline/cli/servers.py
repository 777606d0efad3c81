"""Doors to the history, as processes of their own, and the keys for them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.options import AlertmanagerExternalUrl, Config, Data, GrafanaUrl, Schemas
from pipeline.settings import load_settings


def door(
    data: Data = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="TCP port; 0 takes a free one.")] = 3306,
    bind: Annotated[
        str, typer.Option(help="Address to listen at; beyond the loopback only with users and TLS.")
    ] = "127.0.0.1",
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate (PEM) to offer TLS with.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="The certificate's key (PEM).")] = None,
    users: Annotated[
        Path | None, typer.Option(help="File of those who may come in; --new-user makes its lines.")
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds that a question may take.")] = 60.0,
    row_limit: Annotated[
        int, typer.Option(min=1, help="Rows of an answer; one with more is an error.")
    ] = 100_000,
    memory_limit: Annotated[str, typer.Option(help="DuckDB's memory_limit, for all questions.")] = "512MB",
    temp_limit: Annotated[str, typer.Option(help="Disk that questions may use beyond it.")] = "1GB",
    idle_timeout: Annotated[
        float, typer.Option(min=1, help="Seconds after which a session that asks nothing is closed.")
    ] = 3600.0,
    user_sessions: Annotated[int, typer.Option(min=1, help="Sessions that one user may have at once.")] = 100,
    schemas: Schemas = None,
    new_user: Annotated[
        str | None,
        typer.Option("--new-user", help="Add this user to --users, print the new password, and stop."),
    ] = None,
    child: Annotated[bool, typer.Option("--child", hidden=True)] = False,
    config: Config = None,
) -> None:
    """SQL over the MySQL protocol, for Grafana, BI tools and notebooks; read-only, beside a running pipeline.

    Example: gigawatch door --data gigawatch-demo --port 3306
    """
    if new_user is not None:
        from pipeline.serve.users import add_user

        typer.echo(f"password of {new_user}, shown this once: {add_user(users, new_user)}")
        return
    # Read when DuckDB is loaded: its allocator otherwise keeps every address that it ever had, and after a few large
    # questions the door's limit of address space was used up by memory that nobody used.
    os.environ["DUCKDB_JE_MALLOC_CONF"] = "retain:false"
    from pipeline.door.connection_limits import ConnectionLimits
    from pipeline.door.execution import QueryLimits
    from pipeline.door.server import DoorOptions, run_door

    settings = load_settings(config, data=data, schemas=schemas)
    options = DoorOptions(
        data=settings.data, schemas=settings.schemas, bind=bind, port=port, tls_cert=tls_cert, tls_key=tls_key,
        users=users, memory_limit=memory_limit, temp_limit=temp_limit,
        limits=QueryLimits(timeout=timeout, rows=row_limit, idle=idle_timeout), connections=ConnectionLimits(user=user_sessions),
    )  # fmt: skip
    run_door(options, child)


def board(
    data: Data = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="TCP port; 0 takes a free one.")] = 8420,
    bind: Annotated[
        str, typer.Option(help="Address to listen at; beyond the loopback only with users and TLS.")
    ] = "127.0.0.1",
    alertmanager: Annotated[
        str | None, typer.Option(help="Base URL of the Alertmanager whose silences are shown.")
    ] = None,
    alertmanager_external_url: AlertmanagerExternalUrl = None,
    grafana_url: GrafanaUrl = None,
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate (PEM) to speak TLS with.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="The certificate's key (PEM).")] = None,
    users: Annotated[
        Path | None, typer.Option(help="File of those who may come in; door --new-user makes its lines.")
    ] = None,
    schemas: Schemas = None,
    child: Annotated[bool, typer.Option("--child", hidden=True)] = False,
    config: Config = None,
) -> None:
    """A web page beside the pipeline: open alerts, contract standing, spend, windows; also /metrics and /readyz.

    Example: gigawatch board --data gigawatch-demo
    """
    from pipeline.board.web import BoardOptions, run_board

    settings = load_settings(
        config, data=data, schemas=schemas, alertmanager=alertmanager, grafana_url=grafana_url,
        alertmanager_external_url=alertmanager_external_url,
    )  # fmt: skip
    options = BoardOptions(
        data=settings.data, schemas=settings.schemas, bind=bind, port=port, tls_cert=tls_cert, tls_key=tls_key,
        users=users, alertmanager=settings.alertmanager,
        alertmanager_external_url=settings.alertmanager_external_url, grafana_url=settings.grafana_url,
    )  # fmt: skip
    run_board(options, child)


def keys(
    folder: Annotated[Path, typer.Argument(help="Where they are kept; what is there stays.")],
    host: Annotated[
        list[str] | None, typer.Option(help="Name or address that the certificate is for; again for more.")
    ] = None,
) -> None:
    """What door and board need beyond one machine: a user, a certificate, Grafana's passwords, where missing.

    Example: gigawatch keys /etc/gigawatch/keys --host gigawatch.example --host 10.0.0.7
    """
    from pipeline.serve.keys import make_keys

    for path, made in make_keys(folder, host or ["localhost", "127.0.0.1"]):
        typer.echo(f"{'made' if made else 'kept'} {path}")
