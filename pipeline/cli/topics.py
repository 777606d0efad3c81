"""`gigawatch topics`: the Kafka topics that the pipeline reads and writes."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pipeline.cli.options import Bootstrap, Config
from pipeline.settings import Settings, load_settings


def create(
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


def describe(bootstrap: Bootstrap = None, config: Config = None) -> None:
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


def _specs(settings: Settings, partitions: int) -> list[Any]:
    from dataclasses import replace

    from pipeline import catalog
    from pipeline.stream.topics import ALERTS, DEADLETTER, default_specs

    names = {DEADLETTER: settings.deadletter_topic, ALERTS: settings.alerts_topic}
    specs = default_specs(catalog.load(settings.schemas).topics, partitions)
    named = [replace(spec, name=names.get(spec.name, spec.name)) for spec in specs]
    return [spec for spec in named if spec.name]
