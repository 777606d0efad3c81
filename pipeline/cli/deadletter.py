"""`gigawatch deadletter`: records that could not be understood."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.options import AsJson, Bootstrap, Config, Schemas, print_json
from pipeline.errors import SettingsError
from pipeline.settings import load_settings

if TYPE_CHECKING:
    from pipeline.stream.deadletter_tools import Letter

OfTopic = Annotated[str | None, typer.Option("--topic", help="Only records of this topic.")]
ForReason = Annotated[str | None, typer.Option("--reason", help="Only records with this reason.")]


def list_(
    topic: OfTopic = None,
    reason: ForReason = None,
    limit: Annotated[int, typer.Option(min=1, help="The newest so many.")] = 100,
    bootstrap: Bootstrap = None,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """What could not be understood, and why; oldest first.

    Example: gigawatch deadletter list --reason not_json
    """
    from collections import deque

    from pipeline.serve.letters import letter_document, letters_table
    from pipeline.serve.terminal import stdout
    from pipeline.stream.deadletter_tools import letters

    settings = load_settings(config, bootstrap=bootstrap)
    client, dead = settings.kafka_client(), settings.deadletter_topic
    newest: deque[Letter] = deque(maxlen=limit)
    count = 0
    for letter in letters(settings.bootstrap, dead, client, topic=topic, reason=reason):
        newest.append(letter)
        count += 1
    if as_json:
        return print_json({"records": [letter_document(each) for each in newest], "in_all": count})
    stdout().print(letters_table(newest))
    typer.echo(f"{len(newest)} of {count}; --limit shows more" if count > len(newest) else f"{count} in all")


def show(
    record: Annotated[str, typer.Argument(help="TOPIC/PARTITION/OFFSET, as `list` prints it.")],
    max_bytes: Annotated[int, typer.Option(min=1, help="So much of the value at most.")] = 4096,
    bootstrap: Bootstrap = None,
    schemas: Schemas = None,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """One dead letter: reasons, headers, key, and its value with everything unprintable escaped.

    Example: gigawatch deadletter show telemetry.gpu/0/1234
    """
    from pipeline import catalog
    from pipeline.serve.letters import described, whole_document
    from pipeline.stream.deadletter_tools import find, verdicts
    from pipeline.stream.source_topics import source_topics

    settings = load_settings(config, bootstrap=bootstrap, schemas=schemas)
    letter = find(settings.bootstrap, settings.deadletter_topic, record, settings.kafka_client())
    types = catalog.load(settings.schemas)
    sources = source_topics(settings.sources, types)
    now = verdicts(letter, types, settings.max_message_bytes, sources)
    if as_json:
        return print_json(whole_document(letter, now, max_bytes))
    for line in described(letter, now, max_bytes):
        typer.echo(line)


def replay(
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
    schemas: Schemas = None,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Send records again to where they came from: their bytes, key and headers; exit code 1 if one is refused.

    The dead letters stay.  A record that is still wrong comes back as another one.

    Example: gigawatch deadletter replay --reason unknown_type --dry-run
    """
    from pipeline import catalog
    from pipeline.stream.deadletter_tools import checked_name, letters, replay
    from pipeline.stream.source_topics import source_topics

    if not (records or topic or reason or everything):
        raise SettingsError(
            "replay: found nothing to choose by, expected records, --topic, --reason, or --all for every one"
        )
    settings = load_settings(config, bootstrap=bootstrap, schemas=schemas)
    client = settings.kafka_client()
    names = [checked_name(name) for name in records or ()]
    chosen = letters(
        settings.bootstrap, settings.deadletter_topic, client, topic=topic, reason=reason, names=names
    )
    types = catalog.load(settings.schemas)
    done = replay(
        settings.bootstrap, chosen, client, catalog=types, max_message_bytes=settings.max_message_bytes,
        sources=source_topics(settings.sources, types), dry_run=dry_run, partial=partial,
    )  # fmt: skip
    told, left = [], set(names)
    for each in done:
        left.discard(each.letter.name)
        told.append({"record": each.letter.name, "outcome": each.outcome, "why": each.why})
        if not as_json:
            typer.echo(f"{each.letter.name}: {each.outcome}" + (f": {each.why}" if each.why else ""))
    if as_json:
        missing = [
            {"record": name, "outcome": "missing", "why": "no dead letter about it"} for name in sorted(left)
        ]
        print_json([*told, *missing])
    for name in sorted(left):
        typer.echo(f"{name}: no dead letter about it", err=True)
    if left or any(each["outcome"] == "refused" for each in told):
        raise typer.Exit(1)
