"""The commands: each one reads its options, calls one thing, and prints what came of it.

A GigawatchError ends any of them with its message on stderr and the exit code of its class.  What a command needs is
imported inside it: Faust, DuckDB and Kafka take a second to load, and `gigawatch --help` needs none of them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from typing import Annotated

import typer

from pipeline.cli import (
    collect,
    contracts,
    dashboards,
    deadletter,
    demo,
    imports,
    look,
    maps,
    run,
    servers,
    topics,
)
from pipeline.cli.options import Level
from pipeline.errors import GigawatchError
from pipeline.secret import hidden
from pipeline.serve.logs import log_to_stderr

NO_ARGUMENTS = {"no_args_is_help": True, "rich_markup_mode": "rich"}
EXAMPLES = """
[bold]Start here[/]
  gigawatch demo                                          see it work: nothing else is needed
  gigawatch contract check contract.yaml                  is the contract right?
  gigawatch run --bootstrap HOST:PORT --contract contract.yaml --alertmanager http://HOST:9093
"""
COMMANDS = (
    *(demo.demo, run.run, demo.kafka, demo.simulate, collect.collect),
    *(look.status, look.doctor, look.sql),
    *(servers.door, servers.board, servers.keys),
)
GROUPS: Mapping[str, tuple[str, Mapping[str, Callable[..., None]]]] = {
    "topics": (
        "The Kafka topics that the pipeline reads and writes.",
        {"create": topics.create, "describe": topics.describe},
    ),
    "contract": ("Contracts, before they run.", {"check": contracts.check}),
    "map": (
        "What sources have, and what becomes of it.",
        {"list": maps.list_, "check": maps.check, "explain": maps.explain, "try": maps.try_},
    ),
    "deadletter": (
        "Records that could not be understood.",
        {"list": deadletter.list_, "show": deadletter.show, "replay": deadletter.replay},
    ),
    "import": ("What others keep in files, to Kafka.", {"focus": imports.focus}),
    "dashboards": (
        "Grafana's dashboards.",
        {"build": dashboards.build, "push": dashboards.push},
    ),
}

app = typer.Typer(
    help="Holds AI-compute suppliers to their contracts: Kafka telemetry in, contract alerts out.",
    epilog="Every setting may also stand in a GIGAWATCH_… variable or in a TOML file (--config).",
    pretty_exceptions_enable=False,  # it prints local variables, and settings hold passwords
    **NO_ARGUMENTS,  # type: ignore[arg-type]
)
for each in COMMANDS:
    app.command()(each)
for group, (words, commands) in GROUPS.items():
    under = typer.Typer(help=words, **NO_ARGUMENTS)  # type: ignore[arg-type]
    for name, each in commands.items():
        under.command(name)(each)
    app.add_typer(under, name=group)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"gigawatch {version('gigawatch')}")
        raise typer.Exit


@app.callback(epilog=EXAMPLES)
def _every_command(
    log_level: Annotated[
        Level, typer.Option(envvar="GIGAWATCH_LOG_LEVEL", help="What is logged, to stderr, at least.")
    ] = Level.info,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    log_to_stderr(log_level.value)


def main() -> None:
    """The command line: what a user can cause is one message and an exit code, never a traceback."""
    try:
        app(prog_name="gigawatch")
    except GigawatchError as error:
        print(hidden(f"gigawatch: {error}"), file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:  # `| head` has seen enough; Python would complain once more when it flushes
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
