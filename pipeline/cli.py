"""The commands: each one reads its options, calls one thing, and prints what came of it.

A GigawatchError ends any of them with its message on stderr and the exit code of its class.  It is longer than
other files because every option carries its help text.  What a command needs is imported inside it: Faust,
DuckDB and Kafka take a second to load, and `gigawatch --help` needs none of them.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.errors import GigawatchError, SettingsError
from pipeline.secret import hidden
from pipeline.serve.logs import log_to_stderr
from pipeline.settings import Settings, load_settings

if TYPE_CHECKING:
    from pipeline.embed.sim_messages import Mode
    from pipeline.stream.deadletter_tools import Letter

NO_ARGUMENTS = {"no_args_is_help": True, "rich_markup_mode": "rich"}
EXAMPLES = """
[bold]Start here[/]
  gigawatch demo                                          see it work: nothing else is needed
  gigawatch contract check contract.yaml                  is the contract right?
  gigawatch run --bootstrap HOST:PORT --contract contract.yaml --alertmanager http://HOST:9093
"""

app = typer.Typer(
    help="Holds AI-compute suppliers to their contracts: Kafka telemetry in, contract alerts out.",
    epilog="Every setting may also stand in a GIGAWATCH_… variable or in a TOML file (--config).",
    pretty_exceptions_enable=False,  # it prints local variables, and settings hold passwords
    **NO_ARGUMENTS,  # type: ignore[arg-type]
)
topics_app = typer.Typer(help="The Kafka topics that the pipeline reads and writes.", **NO_ARGUMENTS)  # type: ignore[arg-type]
contract_app = typer.Typer(help="Contracts, before they run.", **NO_ARGUMENTS)  # type: ignore[arg-type]
deadletter_app = typer.Typer(help="Records that could not be understood.", **NO_ARGUMENTS)  # type: ignore[arg-type]
dashboards_app = typer.Typer(help="Grafana's dashboards.", **NO_ARGUMENTS)  # type: ignore[arg-type]
app.add_typer(topics_app, name="topics")
app.add_typer(contract_app, name="contract")
app.add_typer(deadletter_app, name="deadletter")
app.add_typer(dashboards_app, name="dashboards")


class Level(StrEnum):
    """Log levels."""

    debug = "debug"
    info = "info"
    warning = "warning"
    error = "error"


class Format(StrEnum):
    """Forms of a query's result."""

    table = "table"
    csv = "csv"
    json = "json"


Bootstrap = Annotated[
    str | None, typer.Option(help="Kafka brokers, HOST:PORT[,HOST:PORT…].  [default: 127.0.0.1:9092]")
]
Data = Annotated[
    Path | None, typer.Option(help="The data directory of a pipeline.  [default: gigawatch-data]")
]
Config = Annotated[Path | None, typer.Option(help="TOML file with any of the settings.")]
PublicUrl = Annotated[
    str | None, typer.Option(help="The board as people open it; every alert links to its card there.")
]
AlertmanagerExternalUrl = Annotated[
    str | None, typer.Option(help="Alertmanager as people open it.  [default: --alertmanager]")
]
GrafanaUrl = Annotated[
    str | None, typer.Option(help="Grafana as people open it; the board links to a clause's dashboard there.")
]
Speed = Annotated[
    float | None, typer.Option(help="Seconds of event time for each second of the clock; 1 is real time.")
]
Scenario = Annotated[str | None, typer.Option(help="peak-season, steady, or the path of a scenario file.")]


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


@app.command()
def demo(
    scenario: Annotated[
        str | None,
        typer.Option(help="peak-season, steady, or the path of a scenario file.  [default: peak-season]"),
    ] = None,
    duration: Annotated[
        str | None, typer.Option(help="How long the scenario plays, such as 60s or 2m.  [default: 2m]")
    ] = None,
    speed: Speed = None,
    headless: Annotated[
        bool, typer.Option("--headless", help="Lines in place of the live screen, and end with the scenario.")
    ] = False,
    report: Annotated[
        Path | None, typer.Option(help="Write figures and alerts as JSON to this file.")
    ] = None,
    data: Annotated[Path, typer.Option(help="Where everything is kept; a new demo empties it.")] = Path(
        "gigawatch-demo"
    ),
    port: Annotated[int, typer.Option(help="Port of the embedded Kafka; 0 takes a free one.")] = 0,
    keep: Annotated[
        bool, typer.Option("--keep", help="Go on with what the last demo left in --data.")
    ] = False,
) -> None:
    """A real Kafka, the pipeline and a scenario (peak-season) on this machine; nothing else is needed.

    Without a terminal it is headless.  Exit code 0 if exactly the promised alerts came, 1 if not.

    Example: gigawatch demo --scenario peak-season --duration 60s --headless --report report.json
    """
    from pipeline.embed.demo import DemoOptions, run_demo
    from pipeline.embed.screen import Screen

    log_to_stderr("warning")
    live = not headless and sys.stdin.isatty() and sys.stdout.isatty()
    options = DemoOptions(
        scenario=scenario, data=data, duration=_seconds("--duration", duration), speed=speed, port=port,
        report=report, stay=live, keep=keep,
    )  # fmt: skip
    raise typer.Exit(run_demo(options, Screen(live)))


@app.command()
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
    schemas: Annotated[
        Path | None, typer.Option(help="Directory of schema files, in place of the shipped ones.")
    ] = None,
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
        webhook_token_file=webhook_token_file, schemas=schemas, seal_every=seal_every, door=door, board=board,
        public_url=public_url, alertmanager_external_url=alertmanager_external_url, grafana_url=grafana_url,
    )  # fmt: skip
    from pipeline import app as wiring

    wiring.run(settings)


@app.command()
def kafka(
    port: Annotated[int, typer.Option(help="Port on the loopback; 0 takes a free one.")] = 9092,
    data: Annotated[Path, typer.Option(help="Where the broker keeps its log.")] = Path("gigawatch-kafka"),
    prefetch: Annotated[
        bool, typer.Option("--prefetch", help="Have all that a start needs on this machine, and stop.")
    ] = False,
) -> None:
    """Apache Kafka on this machine, for trials: one node, loopback only, until Ctrl-C.

    Example: gigawatch kafka --port 9092
    """
    from pipeline.embed.kafka import EmbeddedKafka
    from pipeline.embed.kafka import prefetch as fetch
    from pipeline.embed.screen import Screen

    screen = Screen(sys.stdout.isatty())
    try:
        if prefetch:
            fetch(screen.step)
            screen.note("everything is there")
            return
        with _stopped_by_signal() as stop, EmbeddedKafka(data, port, progress=screen.step) as broker:
            screen.note(f"Kafka answers at {broker.bootstrap}; its log is in {data}; Ctrl-C stops it")
            while not stop.wait(1.0):
                if broker.pid is None:
                    raise GigawatchError(f"the broker has ended by itself; see {broker.log_file}")
    finally:
        screen.close()


@topics_app.command("create")
def topics_create(
    partitions: Annotated[int, typer.Option(min=1, help="Partitions of each telemetry topic.")] = 4,
    bootstrap: Bootstrap = None,
    config: Config = None,
) -> None:
    """Make the topics that are not there yet; one that exists is left as it is, and differences are told.

    Example: gigawatch topics create --partitions 12 --bootstrap kafka:9092
    """
    from pipeline.stream.topics import create_topics

    settings = load_settings(config, bootstrap=bootstrap)
    for done in create_topics(settings.bootstrap, _specs(settings, partitions), settings.kafka_client()):
        typer.echo(f"{done.name}: {done.what}" + "".join(f"; {text}" for text in done.differs))


@topics_app.command("describe")
def topics_describe(bootstrap: Bootstrap = None, config: Config = None) -> None:
    """The pipeline's topics as they are on the broker.

    Example: gigawatch topics describe --bootstrap kafka:9092
    """
    from pipeline.serve.terminal import add, plain_table, stdout
    from pipeline.stream.topics import describe_topics

    settings = load_settings(config, bootstrap=bootstrap)
    names = [spec.name for spec in _specs(settings, 1)]
    found = {
        state.name: state for state in describe_topics(settings.bootstrap, names, settings.kafka_client())
    }
    table = plain_table("topic", "partitions", "replicas", "records", "set on the topic",
                        right=("partitions", "replicas", "records"))  # fmt: skip
    for name in names:
        if (state := found.get(name)) is None:
            add(table, name, "-", "-", "-", "does not exist: gigawatch topics create makes it")
            continue
        config_text = " ".join(f"{key}={value}" for key, value in sorted(state.config.items()))
        add(table, name, str(state.partitions), str(state.replication), f"{state.records:,}", config_text)
    stdout().print(table)


@app.command()
def simulate(
    scenario: Scenario = None,
    trace: Annotated[
        Path | None, typer.Option(help="Directory of recorded CSV files, to be replayed.")
    ] = None,
    mapping: Annotated[Path | None, typer.Option(help="With --trace: which column is which field.")] = None,
    rate: Annotated[
        float | None, typer.Option(help="GPU samples for each second of the clock: scales the fleet.")
    ] = None,
    speed: Speed = None,
    duration: Annotated[
        str | None, typer.Option(help="How long a scenario plays, such as 60s or 2m.")
    ] = None,
    arrays: Annotated[
        bool, typer.Option("--arrays", help="One message for each node or rack, in place of each GPU.")
    ] = False,
    binary: Annotated[bool, typer.Option("--binary", help="CloudEvents in binary content mode.")] = False,
    write_contract: Annotated[
        Path | None,
        typer.Option(help="Write the scenario's contract, with the instants of this play, into a directory."),
    ] = None,
    bootstrap: Bootstrap = None,
    config: Config = None,
) -> None:
    """Play a scenario, or replay a recorded day, into Kafka.

    Examples:

      gigawatch simulate --scenario steady --rate 20000

      gigawatch simulate --trace recordings/ --mapping mapping.yaml --speed 60
    """
    from pipeline.embed.play import in_words, play_recording, play_scenario
    from pipeline.embed.scenarios import load, plan
    from pipeline.embed.trace import load_mapping, record

    if (scenario is None) == (trace is None):
        found = "neither --scenario nor" if trace is None else "both --scenario and"
        raise SettingsError(f"simulate: found {found} --trace, expected one of them")
    _only_with(
        "--scenario", trace, rate=rate, duration=duration, arrays=arrays, write_contract=write_contract
    )
    _only_with("--trace", scenario, mapping=mapping)
    settings = load_settings(config, bootstrap=bootstrap)
    mode: Mode = "binary" if binary else "structured"
    if scenario is not None:
        pace = _seconds("--duration", duration)
        play = plan(load(scenario), time.time(), rate=rate, speed=speed, duration=pace)
        if write_contract is not None:
            typer.echo(f"contract: {play.write_contract(write_contract)}", err=True)
        sent = play_scenario(settings, play, arrays=arrays, mode=mode)
    else:
        assert trace is not None
        if mapping is None:
            raise SettingsError(
                "simulate: found --trace without --mapping, expected which column is which field"
            )
        recording = record(load_mapping(mapping), trace)
        typer.echo(f"{recording.name}: {len(recording.events):,} events, {recording.late:,} late", err=True)
        sent = play_recording(settings, recording, speed, mode)
    typer.echo("interrupted" if sent is None else in_words(sent))


@contract_app.command("check")
def contract_check(
    files: Annotated[list[Path], typer.Argument(help="Contract files, or directories of them.")],
    schemas: Annotated[
        Path | None, typer.Option(help="Directory of schema files, in place of the shipped ones.")
    ] = None,
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


@app.command()
def status(
    data: Data = None,
    bootstrap: Annotated[
        str | None, typer.Option(help="Kafka to ask for the ends.  [default: the pipeline's own]")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document, for scripts.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="One line, and exit code 1 unless it runs and is well.")
    ] = False,
    config: Config = None,
) -> None:
    """How a pipeline stands: offsets, lag, fates, standing, firing alerts; beside it, or after it has ended.

    Example: gigawatch status --data gigawatch-demo
    """
    from rich.text import Text

    from pipeline.ledger.query import as_json as escaped
    from pipeline.serve import status as outside
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


@app.command()
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
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document, for scripts.")] = False,
    config: Config = None,
) -> None:
    """Is everything there that `run` needs?  Looks, changes nothing; exit code 1 if anything fails.

    Versions, ports, disk, contract, data directory, broker, topics, clock, and those who are called.  It takes
    the settings of `run`, so that it looks at what will run.

    Example: gigawatch doctor --bootstrap kafka:9092 --contract contracts/ --alertmanager http://127.0.0.1:9093
    """
    from pipeline.ledger.query import as_json as escaped
    from pipeline.serve.doctor import checks, examine
    from pipeline.serve.findings import as_document, page, worst
    from pipeline.serve.terminal import stdout

    settings = load_settings(
        config, bootstrap=bootstrap, contract=contract, data=data, alertmanager=alertmanager, webhook=webhook,
        webhook_token_file=webhook_token_file,
    )  # fmt: skip
    findings = list(examine(checks(settings, grafana)))
    if as_json:
        typer.echo(escaped(as_document(findings), indent=1))
    else:
        stdout().print(page(findings))
    raise typer.Exit(1 if worst(findings) == "fail" else 0)


@app.command()
def sql(
    query: Annotated[
        str | None, typer.Argument(help="One SELECT; without it, read from standard input.")
    ] = None,
    form: Annotated[Format, typer.Option("--format", help="How rows are written.")] = Format.table,
    data: Data = None,
    config: Config = None,
) -> None:
    """Ask the published history; works beside a running pipeline.

    Views: gpu, queue, energy, billing, quarantine (raw); each of the four with _10s, _1m, _15m, _1h, _1d
    (roll-ups); alerts, standing, fates, set_aside, readings, health, clauses, windows; and ready-made answers: capacity, power,
    queue_wait, spend, gpu_hours, energy_mix, alerts_open, data_age.  Times are UTC.

    Example: gigawatch sql "SELECT region, max(gpus) FROM gpu_1m GROUP BY ALL" --format csv
    """
    from pipeline import catalog
    from pipeline.errors import QueryError
    from pipeline.ledger.query import ask, nothing_yet, open_views, render

    settings = load_settings(config, data=data)
    if query is None:
        if sys.stdin.isatty():
            raise SettingsError(
                "sql: found no query, expected one SELECT as an argument or on standard input"
            )
        query = sys.stdin.read()
    types = catalog.load(settings.schemas)
    if (why := nothing_yet(settings.data, types)) is not None:
        raise QueryError(why)
    with open_views(settings.data, types) as con:
        for piece in render(ask(con, query), form.value, sys.stdout.isatty()):
            sys.stdout.write(piece)


@app.command()
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
    schemas: Annotated[
        Path | None, typer.Option(help="Directory of schema files, in place of the shipped ones.")
    ] = None,
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
        from pipeline.serve.door_users import add_user

        typer.echo(f"password of {new_user}, shown this once: {add_user(users, new_user)}")
        return
    # Read when DuckDB is loaded: its allocator otherwise keeps every address that it ever had, and after a few large
    # questions the door's limit of address space was used up by memory that nobody used.
    os.environ["DUCKDB_JE_MALLOC_CONF"] = "retain:false"
    from pipeline.serve.door import DoorOptions, run_door
    from pipeline.serve.door_asking import Limits
    from pipeline.serve.door_guests import Rooms

    settings = load_settings(config, data=data, schemas=schemas)
    options = DoorOptions(
        data=settings.data, schemas=settings.schemas, bind=bind, port=port, tls_cert=tls_cert, tls_key=tls_key,
        users=users, memory_limit=memory_limit, temp_limit=temp_limit,
        limits=Limits(timeout=timeout, rows=row_limit, idle=idle_timeout), rooms=Rooms(user=user_sessions),
    )  # fmt: skip
    run_door(options, child)


@app.command()
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
    schemas: Annotated[
        Path | None, typer.Option(help="Directory of schema files, in place of the shipped ones.")
    ] = None,
    child: Annotated[bool, typer.Option("--child", hidden=True)] = False,
    config: Config = None,
) -> None:
    """A web page beside the pipeline: open alerts, contract standing, spend, windows; also /metrics and /readyz.

    Example: gigawatch board --data gigawatch-demo
    """
    from pipeline.serve.board import BoardOptions, run_board

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


@app.command()
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


OfTopic = Annotated[str | None, typer.Option("--topic", help="Only records of this topic.")]
ForReason = Annotated[str | None, typer.Option("--reason", help="Only records with this reason.")]


@deadletter_app.command("list")
def deadletter_list(
    topic: OfTopic = None,
    reason: ForReason = None,
    limit: Annotated[int, typer.Option(min=1, help="The newest so many.")] = 100,
    bootstrap: Bootstrap = None,
    config: Config = None,
) -> None:
    """What could not be understood, and why; oldest first.

    Example: gigawatch deadletter list --reason not_json
    """
    from collections import deque

    from pipeline.serve.letters import letters_table
    from pipeline.serve.terminal import stdout
    from pipeline.stream.deadletter_tools import letters

    settings = load_settings(config, bootstrap=bootstrap)
    client, dead = settings.kafka_client(), settings.deadletter_topic
    newest: deque[Letter] = deque(maxlen=limit)
    count = 0
    for letter in letters(settings.bootstrap, dead, client, topic=topic, reason=reason):
        newest.append(letter)
        count += 1
    stdout().print(letters_table(newest))
    typer.echo(f"{len(newest)} of {count}; --limit shows more" if count > len(newest) else f"{count} in all")


@deadletter_app.command("show")
def deadletter_show(
    record: Annotated[str, typer.Argument(help="TOPIC/PARTITION/OFFSET, as `list` prints it.")],
    max_bytes: Annotated[int, typer.Option(min=1, help="So much of the value at most.")] = 4096,
    bootstrap: Bootstrap = None,
    config: Config = None,
) -> None:
    """One dead letter: reasons, headers, key, and its value with everything unprintable escaped.

    Example: gigawatch deadletter show telemetry.gpu/0/1234
    """
    from pipeline import catalog
    from pipeline.serve.letters import described
    from pipeline.stream.deadletter_tools import find, verdicts

    settings = load_settings(config, bootstrap=bootstrap)
    letter = find(settings.bootstrap, settings.deadletter_topic, record, settings.kafka_client())
    now = verdicts(letter, catalog.load(settings.schemas), settings.max_message_bytes)
    for line in described(letter, now, max_bytes):
        typer.echo(line)


@deadletter_app.command("replay")
def deadletter_replay(
    records: Annotated[
        list[str] | None, typer.Argument(help="TOPIC/PARTITION/OFFSET, as `list` prints it.")
    ] = None,
    topic: OfTopic = None,
    reason: ForReason = None,
    everything: Annotated[bool, typer.Option("--all", help="Every dead letter that is there.")] = False,
    partial: Annotated[
        bool, typer.Option("--partial", help="Also arrays of which good samples were taken in already.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be sent, and send nothing.")
    ] = False,
    bootstrap: Bootstrap = None,
    config: Config = None,
) -> None:
    """Send records again to where they came from: their bytes, key and headers; exit code 1 if one is refused.

    The dead letters stay.  A record that is still wrong comes back as another one.

    Example: gigawatch deadletter replay --reason unknown_type --dry-run
    """
    from pipeline import catalog
    from pipeline.stream.deadletter_tools import checked_name, letters, replay

    if not (records or topic or reason or everything):
        raise SettingsError(
            "replay: found nothing to choose by, expected records, --topic, --reason, or --all for every one"
        )
    settings = load_settings(config, bootstrap=bootstrap)
    client = settings.kafka_client()
    names = [checked_name(name) for name in records or ()]
    chosen = letters(
        settings.bootstrap, settings.deadletter_topic, client, topic=topic, reason=reason, names=names
    )
    done = replay(
        settings.bootstrap, chosen, client, catalog=catalog.load(settings.schemas),
        max_message_bytes=settings.max_message_bytes, dry_run=dry_run, partial=partial,
    )  # fmt: skip
    refused = missing = 0
    left = set(names)
    for each in done:
        left.discard(each.letter.name)
        refused += each.outcome == "refused"
        typer.echo(f"{each.letter.name}: {each.outcome}" + (f": {each.why}" if each.why else ""))
    for name in sorted(left):
        missing += 1
        typer.echo(f"{name}: no dead letter about it", err=True)
    if refused or missing:
        raise typer.Exit(1)


@dashboards_app.command("build")
def dashboards_build(
    out: Annotated[Path, typer.Option(help="The directory of the JSON files.")] = Path("dashboards"),
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit code 1 if a file is not what the code gives.")
    ] = False,
) -> None:
    """Write the dashboards as JSON files, which Grafana's provisioning, its import and `push` take.

    Example: gigawatch dashboards build --check
    """
    from pipeline.serve import dashboards_build as dashboards

    if check:
        differing = dashboards.differing(out)
        for line in differing:
            typer.echo(f"{line}; mend with: gigawatch dashboards build --out {out}", err=True)
        raise typer.Exit(1 if differing else 0)
    for path in dashboards.write(out):
        typer.echo(str(path))


@dashboards_app.command("push")
def dashboards_push(
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
) -> None:
    """Folder, data source and dashboards into an existing Grafana; a second push changes nothing.

    Example: gigawatch dashboards push --url https://grafana.example --token-file grafana-token --dry-run
    """
    from pipeline.serve import dashboards_push as pushing
    from pipeline.serve.dashboards_build import documents
    from pipeline.settings import read_secret

    token = pushing.token_from(token_file, os.environ.get(pushing.TOKEN_VARIABLE))
    source = None
    if datasource is not None:
        password, certificate = (
            read_secret(f) if f else None for f in (datasource_password_file, datasource_ca)
        )
        source = pushing.DataSource(datasource, datasource_user, password, certificate)
    changes = pushing.plan(pushing.Grafana(url, token), documents(), source)
    for change in changes if dry_run else pushing.push(changes):
        typer.echo(f"{change.what}: {change.outcome}")
        for line in change.diff if dry_run else ():
            typer.echo(f"  {line}")


def main() -> None:
    """The command line: what a user can cause is one message and an exit code, never a traceback."""
    try:
        app(prog_name="gigawatch")
    except GigawatchError as error:
        print(hidden(f"gigawatch: {error}"), file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:  # `| head` has seen enough; Python would complain once more when it flushes
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _seconds(option: str, text: str | None) -> float | None:
    """`60s`, `2m` or `90` as seconds.  Raises SettingsError."""
    from pipeline.embed.sim_spec import parse_duration

    if text is None:
        return None
    try:
        return float(parse_duration(int(text) if text.isdigit() else text))
    except ValueError as error:
        raise SettingsError(f"{option}: {error}") from error


def _specs(settings: Settings, partitions: int) -> list[Any]:
    from dataclasses import replace

    from pipeline import catalog
    from pipeline.stream.topics import ALERTS, DEADLETTER, default_specs

    names = {DEADLETTER: settings.deadletter_topic, ALERTS: settings.alerts_topic}
    specs = default_specs(catalog.load(settings.schemas).topics, partitions)
    named = [replace(spec, name=names.get(spec.name, spec.name)) for spec in specs]
    return [spec for spec in named if spec.name]


@contextmanager
def _stopped_by_signal() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set; before the `with` is entered they interrupt as usual."""
    stop = threading.Event()
    before = {n: signal.signal(n, lambda *_: stop.set()) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _only_with(owner: str, other: object, **given: object) -> None:
    """With the `other` one, refuse options that mean nothing to it: silence would look like obedience."""
    for name, value in given.items():
        if other is not None and value not in (None, False):
            raise SettingsError(f"simulate: found --{name.replace('_', '-')}, expected it only with {owner}")


if __name__ == "__main__":
    main()
