"""Every setting of the pipeline: from the command line, `GIGAWATCH_…` variables, a TOML file, or its default."""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import ssl
import stat
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic_core import PydanticCustomError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from pipeline.errors import SettingsError
from pipeline.secret import keep, keep_url

PASSED_THROUGH = ("security_protocol", "sasl_mechanism", "sasl_plain_username")
"""Client settings that aiokafka and kafka-python call by the same names; TLS is passed as a context."""

MAY_HOLD_SECRETS = ("alertmanager", "webhook", "public_url", "grafana_url", "alertmanager_external_url")
"""URLs: of the webhook's all behind the host, of the others user and password."""

PREFIX = "GIGAWATCH_"
"""What the names of variables begin with."""
NO_SETTINGS = ("GIGAWATCH_LOG_LEVEL", "GIGAWATCH_CONTRACTS", "GIGAWATCH_KEYS")
"""An option before the command, and what docker-compose.yml asks for."""
OF_KUBERNETES = re.compile(r"(.*_)?(SERVICE_HOST|SERVICE_PORT(_.*)?|PORT(_\d+_(TCP|UDP|SCTP)(_.*)?)?)")
"""What it tells every pod of a service that is called `gigawatch` or `gigawatch-…`."""

ADDRESS = r"^$|^(\[[0-9A-Fa-f:.]+\]|[^\s:]+):\d{1,5}$"
"""HOST:PORT, an IPv6 host in brackets; or nothing."""


def _for_a_browser(url: str) -> str:
    """Without a slash at its end.  It goes into links that others open, so it must hold no password."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # half an IPv6 address, a port above 65535
        good = False
    typed = url.isascii() and url.isprintable() and not set(' "<>\\^`{|}').intersection(url)
    if not good or not typed or set("@?#").intersection(url):
        found = "" if "@" in url else f", found {url[:200]!r}"
        raise PydanticCustomError(
            "address",
            "expected an address for a browser, such as https://gigawatch.example, without user, query or fragment{found}",
            {"found": found},
        )
    return url.rstrip("/")


BrowserAddress = Annotated[str, AfterValidator(_for_a_browser)]


class SourceSettings(BaseModel):
    """A topic of what people already have: its format, its mapping or mappings, and what the source does not say.

    Of the formats `cloudevents` and `arrow` it says all by itself.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    topic: str = Field(min_length=1, max_length=249)
    format: str
    mapping: str | list[str] = Field(default_factory=list)
    constants: dict[str, str] = Field(default_factory=dict)
    from_label: dict[str, Any] = Field(default_factory=dict)
    where: list[dict[str, Any]] = Field(default_factory=list)

    @property
    def mappings(self) -> list[str]:
        return [self.mapping] if isinstance(self.mapping, str) else self.mapping


class Settings(BaseSettings):
    """Frozen once made.  Times in seconds, sizes in bytes unless the name says otherwise."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    bootstrap: str = Field("127.0.0.1:9092", description="Kafka brokers, host:port[,host:port…]")
    contract: Path | None = Field(None, description="A contract file, or a directory of them")
    data: Path = Field(Path("gigawatch-data"), description="Where ledger and history live")
    alertmanager: str | None = Field(None, description="Base URL of an Alertmanager")
    webhook: str | None = Field(None, description="URL that gets Alertmanager's webhook body, version 4")
    webhook_token_file: Path | None = Field(None, description="File with a bearer token for the webhook")
    alerts_topic: str = Field("gigawatch.alerts", description="Compacted topic of alert states; empty: none")
    deadletter_topic: str = Field("telemetry.deadletter", description="Where records go that make no sense")
    sources: list[SourceSettings] = Field(
        default_factory=list,
        description="Topics of what you already have: [[sources]] in the file, or --source",
    )
    schemas: Path | None = Field(None, description="Directory of schema files, in place of the shipped ones")

    door: str = Field("127.0.0.1:3306", pattern=ADDRESS, description="Where the SQL door opens; empty: none")
    door_idle_timeout: float = Field(
        3600.0, ge=1, description="A session at the SQL door that asks nothing for so long is closed"
    )
    door_user_sessions: int = Field(
        100, ge=1, description="Sessions that one user has at the SQL door at most"
    )
    board: str = Field("127.0.0.1:8420", pattern=ADDRESS, description="Where the board opens; empty: none")
    users: Path | None = Field(None, description="Who may come in at door and board")
    tls_cert: Path | None = Field(None, description="Certificate (PEM) of door and board")
    tls_key: Path | None = Field(None, description="The certificate's key (PEM)")
    public_url: BrowserAddress | None = Field(
        None, description="The board as people open it: every alert that goes out links to its card there"
    )
    alertmanager_external_url: BrowserAddress | None = Field(
        None, description="Alertmanager as people open it, for the board's links; without it `alertmanager`"
    )
    grafana_url: BrowserAddress | None = Field(
        None, description="Grafana as people open it: the board links to the clause's dashboard there"
    )

    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: str | None = None
    sasl_plain_username: str | None = None
    sasl_plain_password: SecretStr | None = None
    sasl_password_file: Path | None = Field(None, description="File with the SASL password")
    ssl_cafile: Path | None = None
    ssl_certfile: Path | None = None
    ssl_keyfile: Path | None = None

    batch_records: int = Field(100_000, gt=0, description="Records that a batch holds at most")
    batch_bytes: int = Field(80 * 2**20, gt=0, description="Bytes of values that a batch holds at most")
    batch_linger: float = Field(0.25, ge=0, description="How long a batch waits for more records")
    max_message_bytes: int = Field(2**20, gt=0, description="A larger value is dead-lettered")
    max_series: int = Field(20_000, gt=0, description="Series that a topic may have; more are quarantined")
    max_entities: int = Field(2_000_000, gt=0, description="GPUs, or other entities, that a topic may have")
    memory_limit: str = Field("600MB", pattern=r"^[\d.]+ ?[KMGT]i?B$", description="DuckDB's memory_limit")
    threads: int = Field(
        1, gt=0, description="DuckDB's threads; batches are decoded, taken in and written on three of our own"
    )
    tick: float = Field(1.0, gt=0, description="How often silence is looked for")
    publish_every: float = Field(10.0, gt=0, description="Age that published roll-ups reach at most")
    seal_every: float = Field(300.0, gt=0, description="Age that published raw rows reach at most")
    keep_raw_days: int = Field(
        90, ge=3, description="Days of raw rows and quarantine that are kept; the largest part of the disk"
    )
    unmatched_after: float = Field(
        3600.0,
        ge=0,
        description="ClauseUnmatched is fired when so much event time has passed and a clause has matched nothing",
    )
    stalled_after: float = Field(
        30.0, gt=0, description="PipelineStalled is fired after so long a standstill"
    )
    give_up_after: float = Field(180.0, gt=0, description="The process ends after so long a standstill")
    page_max_age: float = Field(600.0, gt=0, description="Changes that are older page nobody")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The command line before the environment before the file."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    def kafka_client(self) -> dict[str, Any]:
        """What every Kafka client needs to connect, by aiokafka's and kafka-python's common names."""
        client = self.model_dump(include=set(PASSED_THROUGH), exclude_none=True)
        if self.security_protocol.endswith("SSL"):
            client["ssl_context"] = self._tls()
        password = self._password()
        return client if password is None else {**client, "sasl_plain_password": password}

    def _tls(self) -> ssl.SSLContext:
        """The system's authorities unless `ssl_cafile` names others; host names are checked."""
        try:
            context = ssl.create_default_context(cafile=self.ssl_cafile)
            if self.ssl_certfile is not None:
                context.load_cert_chain(self.ssl_certfile, self.ssl_keyfile)
            return context
        except OSError as error:  # ssl.SSLError is one
            files = ", ".join(str(f) for f in (self.ssl_cafile, self.ssl_certfile, self.ssl_keyfile) if f)
            raise SettingsError(
                f"TLS: {files} cannot be used ({error}); expected PEM files that can be read"
            ) from error

    def _password(self) -> str | None:
        if self.sasl_password_file is not None:
            return read_secret(self.sasl_password_file)
        return self.sasl_plain_password.get_secret_value() if self.sasl_plain_password else None


def refuse_open_rights(path: Path) -> None:
    """Raises SettingsError for a file that group or others may write: whoever can put a password there has it.

    One that is not there, or not ours to look at, is refused by whoever reads it.
    """
    with contextlib.suppress(OSError):
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise SettingsError(
                f"{path}: found rights {mode:03o}, with which others may write to it; expected 600 or 640: chmod go-w {path}"
            )


def read_secret(path: Path) -> str:
    """The secret that a file holds, without its line end.  Raises SettingsError."""
    refuse_open_rights(path)
    try:
        found = path.read_text("utf-8").rstrip("\r\n")
        keep(found.strip())
        return found
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: the secret cannot be read ({error}); check path and rights") from error


def load_settings(file: Path | None = None, **given: Any) -> Settings:
    """Settings from `given` (the command line; None means not given), the environment and a TOML `file`.

    Raises SettingsError that names each wrong setting, what was found and what was expected.
    """
    if "sasl_plain_password" in given:
        raise SettingsError(
            "sasl_plain_password: a secret on the command line; use the environment or a file"
        )
    if file is not None:
        try:
            named = tomllib.loads(file.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise SettingsError(f"{file}: not a readable TOML file ({error})") from error
        _refuse_unknown(str(file), named, Settings.model_fields)
    _refuse_unknown(
        "environment", filter(_is_ours, os.environ), [f"{PREFIX}{n.upper()}" for n in Settings.model_fields]
    )

    class FromFile(Settings):
        model_config = SettingsConfigDict(toml_file=file)

    try:
        found = FromFile(**{name: value for name, value in given.items() if value is not None})
        _keep_secrets(found)
        return found
    except ValidationError as error:
        raise SettingsError("settings: " + "; ".join(map(_told, error.errors()))) from error


def _is_ours(variable: str) -> bool:
    name = variable.upper()
    return name.startswith(PREFIX) and name not in NO_SETTINGS and not OF_KUBERNETES.fullmatch(name)


def _refuse_unknown(where: str, named: Iterable[str], known: Iterable[str]) -> None:
    """A misspelled setting that is passed over is one that somebody believes in."""
    names = {name.casefold(): name for name in known}
    told = []
    for name in sorted(each for each in named if each.casefold() not in names):
        near = difflib.get_close_matches(name.casefold(), names, 1)
        told.append(f"{name}: no such setting" + (f"; did you mean {names[near[0]]}?" if near else ""))
    if told:
        raise SettingsError(f"{where}: {'; '.join(told)}; docs/settings.md has them all")


def _keep_secrets(settings: Settings) -> None:
    """From here on they are in no log and no message."""
    if settings.sasl_plain_password:
        keep(settings.sasl_plain_password.get_secret_value())
    if settings.alertmanager:
        keep_url(settings.alertmanager, path=False)
    if settings.webhook:
        keep_url(settings.webhook, path=True)


def _told(fault: Any) -> str:
    """One fault in words; the value of a secret, or of a name that is none of ours, is not repeated."""
    name = ".".join(map(str, fault["loc"]))
    shown = name in Settings.model_fields and "password" not in name and name not in MAY_HOLD_SECRETS
    return f"{name}: {fault['msg']}" + (f"; found {fault['input']!r}" if shown else "")
