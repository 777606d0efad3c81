"""`gigawatch collect`: what endpoints say, to Kafka."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.options import Bootstrap, Config, Constants, FromLabels, Schemas, WireFormat
from pipeline.errors import MappingError, SettingsError
from pipeline.serve.logs import log_to_stderr
from pipeline.settings import load_settings, read_secret

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipeline.catalog import Catalog
    from pipeline.collect.collector import SourceKind
    from pipeline.collect.scrape import ScrapeOptions
    from pipeline.mappings.mapping_spec import Given


def collect(
    url: Annotated[
        list[str] | None, typer.Option(help="An endpoint, such as http://node-0042:9400/metrics.")
    ] = None,
    targets: Annotated[
        Path | None,
        typer.Option(help="A file of targets, as Prometheus's file_sd_configs has them (JSON or YAML)."),
    ] = None,
    mapping: Annotated[
        str | None,
        typer.Option(help="A shipped mapping's name, or the path of a file: see gigawatch map list."),
    ] = None,
    wire: WireFormat = None,
    constant: Constants = None,
    from_label: FromLabels = None,
    every: Annotated[str, typer.Option(help="How often each target is asked.")] = "30s",
    timeout: Annotated[str, typer.Option(help="How long a whole answer may take.")] = "10s",
    once: Annotated[bool, typer.Option("--once", help="Ask each target once, and stop.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Ask once and print the events; needs no Kafka.")
    ] = False,
    listen: Annotated[
        str, typer.Option(help="Where /healthz and /metrics open; empty: nowhere.")
    ] = "127.0.0.1:8421",
    ca_file: Annotated[
        Path | None, typer.Option(help="PEM file with the authorities of endpoints' certificates.")
    ] = None,
    token_file: Annotated[Path | None, typer.Option(help="File with a token for the endpoints.")] = None,
    token_header: Annotated[
        str | None,
        typer.Option(help="The header that the token goes into as it is.  [default: Authorization: Bearer]"),
    ] = None,
    user: Annotated[str | None, typer.Option(help="User for the endpoints, with --password-file.")] = None,
    password_file: Annotated[Path | None, typer.Option(help="File with the user's password.")] = None,
    bootstrap: Bootstrap = None,
    schemas: Schemas = None,
    config: Config = None,
) -> None:
    """Scrape exporters, management controllers and feeds, and send what they say to Kafka, until Ctrl-C.

    A target that does not answer is down: that is logged and counted, and nothing is sent in its place.  With --once or
    --dry-run the exit code is 1 if any is.

    Examples:

      gigawatch collect --url http://node-0042:9400/metrics --mapping dcgm --constant provider=halcyon --dry-run

      gigawatch collect --targets targets.json --mapping dcgm --every 30s
    """
    from pipeline.catalog import load
    from pipeline.collect import collecting
    from pipeline.collect.targets import TargetFile, targets_of
    from pipeline.mappings.trial import given_of

    settings, address = load_settings(config, bootstrap=bootstrap, schemas=schemas), _address(listen)
    catalog, given = load(settings.schemas), given_of(constant or [], from_label or [])
    options = collecting.CollectOptions(
        _kinds(mapping, wire, given, catalog), given, _seconds("--every", every),
        _scrape_options(_seconds("--timeout", timeout), ca_file, token_file, token_header, user, password_file),
        targets_of(url or ()), TargetFile(targets) if targets else None,
        address if not (once or dry_run) else None,
    )  # fmt: skip
    if once or dry_run:
        log_to_stderr("error")  # what came of each target is said at the end
    if dry_run:
        found = asyncio.run(collecting.dry_run(options, catalog, typer.echo))
    else:
        found = asyncio.run(
            collecting.collect(options, catalog, settings.bootstrap, settings.kafka_client(), once)
        )
    down = [state for state in found.states.values() if not state.up]
    for state in found.states.values() if once or dry_run else ():
        words = f"up, {state.samples} samples" if state.up else f"down: {state.why}"
        lacks = f"; {state.lacking} more lack a required field" if state.lacking else ""
        typer.echo(f"{state.target.url}: {words}{lacks}", err=True)
    if down and (once or dry_run):
        raise typer.Exit(1)


def _kinds(
    mapping: str | None, wire: str | None, given: Given, catalog: Catalog
) -> Callable[[str], SourceKind]:
    """Mappings by their names, each read and checked once.  Raises MappingError."""
    from functools import cache

    from pipeline.collect.collector import SourceKind
    from pipeline.formats.registry import format_named
    from pipeline.mappings.mapping_file import check_given, lacking, load_source_mapping

    @cache
    def kind(name: str) -> SourceKind:
        if not (named := name or mapping):
            raise MappingError("collect: found no --mapping, expected one: see gigawatch map list")
        found = load_source_mapping(named, catalog)
        wrong = list(check_given(given, [found], catalog))
        for samples in found.samples:
            if lacks := lacking(given, samples, catalog.by_topic(samples.topic)):
                wrong.append(
                    f"found nothing for {', '.join(lacks)} of {samples.topic}, expected --constant or --from-label"
                )
        if wrong:
            raise MappingError("\n  ".join([f"mapping {found.mapping}:", *wrong]))
        return SourceKind(format_named(wire or found.formats[0]), found)

    return kind


def _scrape_options(
    seconds: int,
    ca: Path | None,
    token: Path | None,
    header: str | None,
    user: str | None,
    password: Path | None,
) -> ScrapeOptions:
    import ssl

    import aiohttp

    from pipeline.collect.scrape import ScrapeOptions

    if (user is None) != (password is None):
        raise SettingsError("collect: found one of --user and --password-file, expected both or neither")
    if user is not None and token is not None:
        raise SettingsError("collect: found --user and --token-file, expected one of them")
    headers = {}
    if token is not None:
        headers[header or "Authorization"] = read_secret(token) if header else f"Bearer {read_secret(token)}"
    if user is not None and password is not None:
        headers["Authorization"] = aiohttp.BasicAuth(user, read_secret(password)).encode()
    try:
        tls = ssl.create_default_context(cafile=ca) if ca else None
    except OSError as error:
        raise SettingsError(f"--ca-file: {ca} cannot be used ({error}); expected a PEM file") from error
    return ScrapeOptions(seconds=seconds, headers=headers, tls=tls)


def _seconds(option: str, text: str) -> int:
    from pipeline.contract.faults import Unreadable
    from pipeline.contract.values import duration

    try:
        found = duration(text).exact
    except Unreadable as error:
        raise SettingsError(f"{option}: found {text!r}, expected {error}") from error
    if not 1 <= found <= 86_400:
        raise SettingsError(f"{option}: found {text!r}, expected a duration from 1s to 24h")
    return found


def _address(text: str) -> tuple[str, int] | None:
    if not text:
        return None
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or not 0 <= int(port) < 65_536:
        raise SettingsError(f"--listen: found {text!r}, expected HOST:PORT")
    return host.strip("[]"), int(port)
