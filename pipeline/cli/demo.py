"""What runs on this machine alone, to see it work: the demo, a Kafka, a supplier's fleet."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.options import Bootstrap, Config
from pipeline.errors import GigawatchError, ScenarioError, SettingsError
from pipeline.serve.logs import log_to_stderr
from pipeline.settings import load_settings

if TYPE_CHECKING:
    from pipeline.simulate.cloud_events import Mode

Speed = Annotated[
    float | None, typer.Option(help="Seconds of event time for each second of the clock; 1 is real time.")
]
Scenario = Annotated[str | None, typer.Option(help="peak-season, steady, or the path of a scenario file.")]


def demo(
    scenario: Annotated[
        str | None,
        typer.Option(
            help="peak-season, dcgm (it arrives as dcgm-exporter output), steady, or the path of a scenario file.  "
            "[default: peak-season]"
        ),
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
    from pipeline.demo.orchestration import DemoOptions, run_demo
    from pipeline.demo.screen import Screen

    log_to_stderr("warning")
    live = not headless and sys.stdin.isatty() and sys.stdout.isatty()
    options = DemoOptions(
        scenario=scenario, data=data, duration=_seconds("--duration", duration), speed=speed, port=port,
        report=report, stay=live, keep=keep,
    )  # fmt: skip
    raise typer.Exit(run_demo(options, Screen(live)))


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
    from pipeline.broker.kafka import EmbeddedKafka
    from pipeline.broker.kafka import prefetch as fetch
    from pipeline.demo.screen import Screen

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
    from pipeline.simulate.play import in_words, play_recording, play_scenario
    from pipeline.simulate.recording import load_mapping, record
    from pipeline.simulate.scenarios import load, plan

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
        if play.scenario.exporters:
            raise ScenarioError(
                f"simulate: found {scenario}, whose exporters have to be scraped, expected a scenario that is sent; "
                f"gigawatch demo --scenario {scenario} plays it"
            )
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


def _seconds(option: str, text: str | None) -> float | None:
    """`60s`, `2m` or `90` as seconds.  Raises SettingsError."""
    from pipeline.contract.checked_parts import parse_duration

    if text is None:
        return None
    try:
        return float(parse_duration(int(text) if text.isdigit() else text))
    except ValueError as error:
        raise SettingsError(f"{option}: {error}") from error


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
