"""What is scraped: URLs, and files of targets as Prometheus's file-based service discovery has them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline.errors import SettingsError

MAX_TARGETS = 20_000


@dataclass(frozen=True, slots=True)
class Target:
    """An endpoint.  `labels` go onto each of its points, `instance` (HOST:PORT) among them; `mapping`: one of its own."""

    url: str
    labels: tuple[tuple[str, str], ...]
    mapping: str | None = None

    @property
    def instance(self) -> str:
        return dict(self.labels)["instance"]


def target_of(url: str, labels: Mapping[str, str] | None = None) -> Target:
    """The target of a URL.  Raises SettingsError for one that cannot be scraped, or that holds a password."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise SettingsError(f"found {url[:200]!r}, expected a URL such as http://node-0042:9400/metrics")
    if parts.username or parts.password:
        raise SettingsError(f"{parts.hostname}: found a user in the URL, expected --user and --password-file")
    named = {name: text for name, text in (labels or {}).items() if not name.startswith("__")}
    mapping = (labels or {}).get("__mapping__")
    return Target(url, tuple(sorted({"instance": parts.netloc, **named}.items())), mapping)


class TargetFile:
    """A file of targets, JSON or YAML: a list of `{targets: [HOST:PORT, …], labels: {…}}`.

    The labels `__scheme__`, `__metrics_path__` and `__param_…` say what Prometheus has them say; `__mapping__` names the
    mapping of these targets.  A file that changes is read again; one that is wrong then leaves the targets as they were.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: tuple[int, int] | None = None
        self.targets: tuple[Target, ...] = ()

    def read(self) -> bool:
        """Read the file if it has changed; whether it had.  Raises SettingsError with the place of what is wrong."""
        try:
            found = self.path.stat()
            seen = (found.st_mtime_ns, found.st_size)
            if seen == self._seen:
                return False
            self._seen = seen
            groups = YAML(typ="safe").load(self.path.read_text("utf-8"))
        except (OSError, UnicodeDecodeError, YAMLError) as error:
            raise SettingsError(f"{self.path}: cannot be read ({str(error).splitlines()[0]})") from error
        self.targets = tuple(dict.fromkeys(self._targets(groups)))
        return True

    def _targets(self, groups: Any) -> Iterator[Target]:
        if not isinstance(groups, list):
            raise SettingsError(f"{self.path}: expected a list of {{targets: [HOST:PORT], labels: {{}}}}")
        found = 0
        for number, group in enumerate(groups, 1):
            where = f"{self.path}: group {number}"
            targets = group.get("targets") if isinstance(group, dict) else None
            if not isinstance(targets, list) or not all(isinstance(each, str) for each in targets):
                raise SettingsError(f"{where}: targets: found {targets!r}, expected a list of HOST:PORT")
            labels = {str(k): str(v) for k, v in (group.get("labels") or {}).items()}
            found += len(targets)
            if found > MAX_TARGETS:
                raise SettingsError(
                    f"{where}: found more than {MAX_TARGETS:,} targets; give them to several collectors"
                )
            yield from (_scraped(where, each, labels) for each in targets)


def _scraped(where: str, address: str, labels: Mapping[str, str]) -> Target:
    """The target of an address and its labels, by Prometheus's rules."""
    scheme, path = labels.get("__scheme__", "http"), labels.get("__metrics_path__", "/metrics")
    query = urlencode({name[8:]: text for name, text in labels.items() if name.startswith("__param_")})
    url = f"{scheme}://{address}{path}" + (f"?{query}" if query else "")
    try:
        return target_of(url if "://" not in address else address, labels)
    except SettingsError as error:
        raise SettingsError(f"{where}: {address}: {error}") from error


def targets_of(urls: Iterable[str]) -> tuple[Target, ...]:
    """The targets of URLs, each once."""
    return tuple(dict.fromkeys(target_of(url) for url in urls))
