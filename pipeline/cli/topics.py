"""`gigawatch topics`: the Kafka topics that the pipeline reads and writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.options import AsJson, Bootstrap, Config, Schemas, Sources, print_json, sources_of
from pipeline.settings import Settings, load_settings

if TYPE_CHECKING:
    from pipeline.stream.topic_admin import TopicState


def create(
    partitions: Annotated[int, typer.Option(min=1, help="Partitions of each telemetry topic.")] = 4,
    bootstrap: Bootstrap = None,
    schemas: Schemas = None,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Make the topics that are not there yet; one that exists is left as it is, and differences are told.

    Example: gigawatch topics create --partitions 12 --bootstrap kafka:9092
    """
    from pipeline.stream.topic_admin import create_topics

    settings = load_settings(config, bootstrap=bootstrap, schemas=schemas)
    made = create_topics(settings.bootstrap, _specs(settings, partitions), settings.kafka_client())
    if as_json:
        return print_json([{"topic": d.name, "outcome": d.what, "differs": d.differs} for d in made])
    for done in made:
        typer.echo(f"{done.name}: {done.what}" + "".join(f"; {text}" for text in done.differs))


def describe(
    bootstrap: Bootstrap = None,
    source: Sources = None,
    schemas: Schemas = None,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """The pipeline's topics as they are on the broker, those of its sources among them.

    Example: gigawatch topics describe --bootstrap kafka:9092
    """
    from pipeline.serve.terminal import add, plain_table, stdout
    from pipeline.stream.topic_admin import describe_topics

    settings = load_settings(config, bootstrap=bootstrap, sources=sources_of(source), schemas=schemas)
    own = [spec.name for spec in _specs(settings, 1)]
    names = list(dict.fromkeys([*own, *(each.topic for each in settings.sources)]))
    found = {
        state.name: state for state in describe_topics(settings.bootstrap, names, settings.kafka_client())
    }
    if as_json:
        return print_json([_document(name, found.get(name)) for name in names])
    table = plain_table("topic", "partitions", "replicas", "records", "set on the topic",
                        right=("partitions", "replicas", "records"))  # fmt: skip
    for name in names:
        if (state := found.get(name)) is None:
            maker = "gigawatch topics create" if name in own else "whoever writes to it"
            add(table, name, "-", "-", "-", f"does not exist: {maker} makes it")
            continue
        config_text = " ".join(f"{key}={value}" for key, value in sorted(state.config.items()))
        add(table, name, str(state.partitions), str(state.replication), f"{state.records:,}", config_text)
    stdout().print(table)


def _document(name: str, state: TopicState | None) -> dict[str, Any]:
    if state is None:
        return {"topic": name, "exists": False}
    return {
        "topic": name, "exists": True, "partitions": state.partitions, "replicas": state.replication,
        "records": state.records, "config": dict(sorted(state.config.items())),
    }  # fmt: skip


def _specs(settings: Settings, partitions: int) -> list[Any]:
    from dataclasses import replace

    from pipeline import catalog
    from pipeline.stream.topic_admin import ALERTS, DEADLETTER, default_specs

    names = {DEADLETTER: settings.deadletter_topic, ALERTS: settings.alerts_topic}
    specs = default_specs(catalog.load(settings.schemas).topics, partitions)
    named = [replace(spec, name=names.get(spec.name, spec.name)) for spec in specs]
    return [spec for spec in named if spec.name]
