"""A pipeline's status as it can be asked from outside: what it wrote last, whether it lives, what Kafka says."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from pipeline import catalog
from pipeline.errors import GigawatchError, SettingsError
from pipeline.history.query import nothing_yet
from pipeline.ledger import status
from pipeline.serve.terminal import clean, duration
from pipeline.settings import Settings
from pipeline.stream.topic_admin import describe_topics

EXTRA = (
    "contracts",
    "contract_error",
    "servers",
    "lag",
    "watermarks",
    "evaluated_to",
    "evaluated_share",
    "stalled",
    "clocks",
    "unmatched",
    "absent_topics",
    "ignored",
    "tampered",
    "standing",
    "undelivered",
)
"""What `status --json` says beyond a report."""
MAKE_TOPICS = "it is looked for again and again; gigawatch topics create makes it, unless it is a source's"
QUIET_AFTER = 30.0
"""Seconds after which a living pipeline's status, written every two, is too old."""


def status_now(settings: Settings, asked: str | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """The last status, with the lag as Kafka has it now, and what is known of process and broker.

    `asked`: a bootstrap address to use in place of the pipeline's own.
    Raises SettingsError when no pipeline has ever written a status there.
    """
    found, state = status_written(settings.data)
    kafka: dict[str, Any] = {"bootstrap": asked or found["bootstrap"], "answers": True, "error": None}
    try:
        states = describe_topics(kafka["bootstrap"], list(found["lag"]), settings.kafka_client())
        found = status.with_ends(found, {topic.name: topic.offsets for topic in states})
    except GigawatchError as error:
        kafka |= {"answers": False, "error": str(error)}
    return found, {**state, "kafka": kafka}


def status_written(data: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The same without asking Kafka: the lag is as the pipeline last saw it, and `answers` is None.

    Raises SettingsError when no pipeline has ever written a status there.
    """
    found = status.read(data)
    if found is None:
        raise SettingsError(
            f"{data}: no status there, expected the data directory of a pipeline that has run; name it with --data"
        )
    pid = status.writer_of(data)
    state = {
        "running": pid is not None,
        "pid": pid,
        "state": found["state"],
        "written_at": found["written_at"],
        "age_s": round(status.age(found, time.time()), 1),
        "kafka": {"bootstrap": found["bootstrap"], "answers": None, "error": None},
    }
    return found, state


def well(data: Path, now: float) -> tuple[bool, str]:
    """Whether a pipeline lives on `data` and has said so lately, in a line; for supervisors, so Kafka is not asked.

    `now`: wall clock, epoch seconds.
    """
    found, pid = status.read(data), status.writer_of(data)
    if pid is None:
        return False, f"{data}: no pipeline runs on it{f'; {ended(found)}' if found else ''}"
    if found is None or found["pid"] != pid:
        return True, f"{data}: process {pid} is starting"
    if found.get("stalled"):
        return False, f"{data}: process {pid} runs, and {found['stalled']}"
    age = status.age(found, now)
    if age > QUIET_AFTER:
        return (
            False,
            f"{data}: process {pid} runs, and hangs or is suspended: its status is {duration(age)} old",
        )
    return True, f"{data}: process {pid}, {found['state']}; its status is {duration(age)} old"


def ended(found: dict[str, Any]) -> str:
    """Since when and why a pipeline that does not run does not, by its last status."""
    at = f"{datetime.fromisoformat(found['written_at']):%Y-%m-%d %H:%M:%S} UTC"
    if found["state"] == "stopped":
        return f"it has been stopped since {at}, in good order"
    if found["state"] == "failed":
        return f"it has failed, at {at}: {clean(found['error'])}"
    return f"it has been dead since {at}: it ended without a word"


def as_json(found: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    """The report of the run so far, with its standing and what is known of the process."""
    return {**status.report(found), **{key: found.get(key) for key in EXTRA}, "pipeline": state}


def head(data: Path, found: dict[str, Any], state: dict[str, Any]) -> Iterator[str]:
    """The first lines: does it live, how old is this, does Kafka answer, which contract."""
    age = duration(round(state["age_s"]))
    if state["running"]:
        yield f"{data}: running, process {state['pid']}; this was written {age} ago"
    elif found["state"] == "stopped":
        yield f"{data}: stopped {age} ago, in good order"
    elif found["state"] == "failed":
        yield f"{data}: not running; it ended with an error, its last status is {age} old"
        yield f"It said: {clean(found['error'])}"
    else:
        yield f"{data}: not running; it ended without a word, its last status is {age} old"
    if not state["running"] and found["segments"]:
        yield "Its newest raw rows are safe and not readable yet: the next start publishes them"
    kafka = state["kafka"]
    lag = "answers, lag as of now" if kafka["answers"] else "does not answer, lag as of then"
    yield f"Kafka {kafka['bootstrap']}: {lag}"
    contracts = ", ".join(f"{c['id']} {c['version']}" for c in found["contracts"])
    yield f"Contract: {clean(contracts) or 'none'}"
    if found.get("evaluated_to") and state["running"]:
        share = (
            f", {found['evaluated_share']:.0%} of the backlog"
            if found.get("evaluated_share") is not None
            else ""
        )
        yield f"Evaluated to {found['evaluated_to']}{share}; it goes on"
    if state["running"]:
        yield from (f"STALLED: {clean(words)}" for words in [found.get("stalled")] if words)
        yield from (f"A CLOCK IS WRONG: {clean(words)}" for words in found.get("clocks", ()))
    yield from (f"TOPIC MISSING: {clean(topic)}; {MAKE_TOPICS}" for topic in found.get("absent_topics", ()))
    yield from (
        f"Ignored on {clean(topic)}: {_most(names)}" for topic, names in found.get("ignored", {}).items()
    )
    yield from (f"MATCHES NOTHING: {clean(words)}" for words in found.get("unmatched", ()))
    if not state["running"] and (why := nothing_yet(data, catalog.load())) is not None:
        yield clean(why)
    yield from (f"HISTORY TAMPERED WITH: {clean(line)}" for line in found.get("tampered", ()))
    yield from _open_servers(found.get("servers", {}) if state["running"] else {})
    if found["contract_error"]:
        yield f"A NEW CONTRACT IS REFUSED, the old one goes on: {clean(found['contract_error'])}"
    yield ""


def _most(names: dict[str, int], shown: int = 5) -> str:
    """The metrics that came most often and that no mapping reads, with their points."""
    most = sorted(names.items(), key=lambda item: (-item[1], item[0]))
    told = ", ".join(f"{clean(name)} ({n:,})" for name, n in most[:shown])
    return told + (f" and {len(most) - shown} more" if len(most) > shown else "")


def _open_servers(servers: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Where the door and the board are, what keeps them shut, and why they were opened again."""
    for command, server in servers.items():
        where = server["address"] or "opening"
        shut = f"SHUT: {clean(server['error'])}" if server["error"] else where
        yield f"{command.capitalize()}: {shut}{reopened(server)}"


def reopened(server: dict[str, Any]) -> str:
    """When and why a server was opened again, to be added to a line about it; empty if it never was."""
    if not (again := server.get("again")):
        return ""
    often = f" (the {again['times']}. time)" if again["times"] > 1 else ""
    return f"; opened again at {again['at']}{often}: {clean(again['why'])}"
