"""What `gigawatch doctor` looks at where alerts and eyes are: Alertmanager, webhook, Grafana."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline.doctor.findings import Finding, fail, ok, warn
from pipeline.doctor.kafka_checks import skew
from pipeline.notify.post import checked_url, origin, shown
from pipeline.settings import read_secret

TIMEOUT = 5.0
ALERTMANAGER = (0, 22)
"""The first one whose routes have `matchers`, which docs and shipped file use."""
GRAFANA = (8, 0)
"""The first one that reads the dashboards as they are shipped."""

Clock = Callable[[], float]


def called(alertmanager: str | None, webhook: str | None, topic: str) -> Iterator[Finding]:
    """Whether an alert reaches a person at all."""
    if not alertmanager and not webhook:
        where = f"alerts go to the topic {topic} only" if topic else "alerts go to the history only"
        yield warn("receivers", where, "name --alertmanager or --webhook, so that somebody is called")


def alertmanager(url: str, clock: Clock = time.time) -> Iterator[Finding]:
    """Ready, of a version that is known to work, with a clock like ours and a route for the Watchdog."""
    base = checked_url(url, "alertmanager")
    answer = ask("alertmanager", f"{base}/-/ready", "start it, or name its root with --alertmanager")
    if isinstance(answer, Finding):
        yield answer
        return
    yield from date_of("Alertmanager", answer, clock())
    status = ask("alertmanager", f"{base}/api/v2/status", "name the root of Alertmanager, without /api/…")
    if isinstance(status, Finding):
        yield status
        return
    try:
        told = status.json()
        version, config = str(told["versionInfo"]["version"]), str(told["config"]["original"])
    except (ValueError, KeyError, TypeError):
        yield fail(
            "alertmanager", f"{shown(base)}: does not answer as one does", "name an Alertmanager's root"
        )
        return
    yield old_or_not("alertmanager", f"{shown(base)}: ready, version {version}", version, ALERTMANAGER)
    if "Watchdog" not in config:
        yield warn(
            "alertmanager",
            f"{shown(base)}: no route names the Watchdog",
            "send it to a dead man's switch: when the pipeline dies its alerts only look resolved",
        )
    if mute := silent_receivers(config):
        yield warn(
            "alertmanager",
            f"{shown(base)}: {', '.join(mute)}: no destination",
            "give each receiver a webhook_configs, pagerduty_configs, …: what is routed to it reaches nobody",
        )


def silent_receivers(config: str) -> list[str]:
    """The receivers of an Alertmanager's configuration that have a name and nothing else."""
    try:
        receivers = YAML(typ="safe", pure=True).load(config)["receivers"]
        return [str(one["name"]) for one in receivers if set(one) == {"name"}]
    except (YAMLError, KeyError, TypeError):
        return []  # it is running, so it is right: a form that we do not know says nothing


def webhook(url: str, token_file: Path | None) -> Iterator[Finding]:
    """Well-formed, with a token that can be read; nothing is posted, for that would page somebody."""
    base = checked_url(url, "webhook")
    if token_file is not None and not read_secret(token_file).strip():
        yield fail("webhook", f"{token_file}: is empty", "put the bearer token into it")
    elif urlsplit(base).scheme == "http" and token_file is not None and not _loopback(base):
        yield warn("webhook", f"{origin(base)}: the token travels in the clear", "use https")
    else:
        yield ok("webhook", f"{origin(base)}: well-formed; not called, that would page")


def grafana(url: str, clock: Clock = time.time) -> Iterator[Finding]:
    """It answers, its own database does, and it is of a version that reads the dashboards."""
    base = checked_url(url, "grafana")
    answer = ask("grafana", f"{base}/api/health", "start it, or name its root with --grafana")
    if isinstance(answer, Finding):
        yield answer
        return
    yield from date_of("Grafana", answer, clock())
    try:
        told = answer.json()
        version, database = str(told["version"]), str(told["database"])
    except (ValueError, KeyError, TypeError):
        yield fail(
            "grafana", f"{shown(base)}: does not answer as a Grafana does", "name its root with --grafana"
        )
        return
    if database != "ok":
        yield fail("grafana", f"{shown(base)}: its database is {database}", "see Grafana's log")
    else:
        yield old_or_not("grafana", f"{shown(base)}: version {version}", version, GRAFANA)


def ask(check: str, url: str, remedy: str) -> httpx.Response | Finding:
    """The answer to a GET, or the finding that says why there is none; redirects are not followed."""
    try:
        answer = httpx.get(url, timeout=TIMEOUT)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return fail(check, f"{shown(url)}: {type(error).__name__}: {error}", remedy)
    if answer.is_success:
        return answer
    return fail(check, f"{shown(url)}: HTTP {answer.status_code}", remedy)


def date_of(whose: str, answer: httpx.Response, now: float) -> Iterator[Finding]:
    """Its clock by the `Date` of its answer, which has whole seconds, against `now` (epoch seconds)."""
    try:
        told = parsedate_to_datetime(answer.headers["date"]).timestamp()
    except (KeyError, ValueError):
        return
    # Cut to the second: it was between `told` and a second later.
    ahead = told - now if told > now else min(0.0, told + 1 - now)
    yield skew(whose, ahead)


def old_or_not(check: str, found: str, version: str, least: tuple[int, int]) -> Finding:
    """Whether a version such as `0.25.0` is at least `least`; one that says nothing is let pass."""
    numbers = re.match(r"v?(\d+)\.(\d+)", version)
    if numbers and (int(numbers[1]), int(numbers[2])) < least:
        return warn(check, found, f"use {least[0]}.{least[1]} or newer")
    return ok(check, found)


def _loopback(url: str) -> bool:
    host: Any = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
