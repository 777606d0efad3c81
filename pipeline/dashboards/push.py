"""The dashboards into an existing Grafana, by its HTTP API: folder, data source, dashboards, each known by its uid.

Everything is looked at before anything is changed: what is there is read, what would change is decided (`plan`), and
only then it is done (`push`).  A second push changes nothing.  A dashboard is saved with the version that was read, so
that what somebody saves in between is never overwritten: Grafana answers 412.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipeline.dashboards.generate import Document
from pipeline.dashboards.panel_sql import DATA_SOURCE
from pipeline.errors import GigawatchError, SettingsError
from pipeline.notify.post import checked_url, shown
from pipeline.secret import keep
from pipeline.settings import read_secret

FOLDER, FOLDER_TITLE = "gigawatch", "Gigawatch"
TIMEOUT = 10.0
TOKEN_VARIABLE = "GRAFANA_TOKEN"
INSTALL = "pip install 'gigawatch[grafana]'"
OURS_TO_KEEP = ("url", "user", "database", "type")
"""What of a data source is compared; its password cannot be read."""


@dataclass(frozen=True, slots=True)
class DataSource:
    """How Grafana reaches the SQL door: HOST:PORT, user, and for TLS the certificate that it checks."""

    address: str
    user: str = "grafana"
    password: str | None = None
    certificate: str | None = None

    def document(self) -> Document:
        """As Grafana's API takes it; the same as dashboards/provisioning has."""
        tls: Document = {"tlsAuthWithCACert": True} if self.certificate is not None else {}
        secrets = {"password": self.password, "tlsCACert": self.certificate}
        return {
            "name": FOLDER_TITLE,
            "uid": DATA_SOURCE,
            "type": "mysql",
            "access": "proxy",
            "url": self.address,
            "user": self.user,
            "database": "gigawatch",
            "jsonData": {"database": "gigawatch", "timezone": "+00:00", **tls},
            "secureJsonData": {name: value for name, value in secrets.items() if value is not None},
        }


@dataclass(frozen=True, slots=True)
class Change:
    """One thing: what it is, what becomes of it (new, changed, unchanged), the lines that differ, and how it is done."""

    what: str
    outcome: str
    diff: Sequence[str] = ()
    act: Callable[[], Any] = field(default=lambda: None, repr=False)


class Grafana:
    """A Grafana and a token for it.  Every method raises GigawatchError that says what to do."""

    def __init__(self, url: str, token: str) -> None:
        try:
            from grafana_client.api import GrafanaApi
        except ImportError as error:
            raise GigawatchError(
                f"dashboards push needs a package that is not installed: {INSTALL}"
            ) from error
        self.url = _root(url)
        # Its prefix is put before `api` as it is, so it has to end with a slash.
        self._api = GrafanaApi.from_url(f"{self.url}/", credential=token, timeout=TIMEOUT)

    def check(self) -> str:
        """Its version."""
        told: Any = self.ask("its health", lambda: self._api.client.GET("/health"))
        if not isinstance(told, dict) or "database" not in told:
            raise self._not_grafana()
        return str(told.get("version", "unknown"))

    def folder(self) -> Document | None:
        """Our folder, None where there is none."""
        return self._found("the folder", lambda: self._api.folder.get_folder(FOLDER))

    def make_folder(self) -> None:
        """Makes it."""
        self.ask("the folder", lambda: self._api.folder.create_folder(FOLDER_TITLE, FOLDER))

    def data_source(self) -> Document | None:
        """Our data source, None where there is none."""
        return self._found("the data source", lambda: self._api.datasource.get_datasource_by_uid(DATA_SOURCE))

    def save_data_source(self, document: Document, new: bool) -> None:
        """Makes or replaces it."""
        api = self._api.datasource
        self.ask(
            "the data source",
            lambda: (
                api.create_datasource(document)
                if new
                else api.update_datasource_by_uid(DATA_SOURCE, document)
            ),
        )

    def dashboard(self, uid: str) -> Document | None:
        """A dashboard with its `meta`, None where there is none."""
        return self._found(f"the dashboard {uid}", lambda: self._api.dashboard.get_dashboard(uid))

    def save(self, document: Document) -> None:
        """Saves a dashboard over the version that it names."""
        body = {
            "dashboard": document,
            "folderUid": FOLDER,
            "message": "gigawatch dashboards push",
            "overwrite": False,
        }
        self.ask(f"the dashboard {document['uid']}", lambda: self._api.dashboard.update_dashboard(body))

    def ask(self, what: str, call: Callable[[], Any], *, missing: bool = False) -> Any:
        """The answer; None for 404 where something may be missing."""
        from grafana_client.client import GrafanaException

        try:
            return call()
        except GrafanaException as error:
            if missing and error.status_code == 404 and isinstance(error.response, dict):
                return None
            raise self._refusal(what, error) from error
        except ValueError as error:  # an answer that is not JSON
            raise self._not_grafana() from error
        except OSError as error:  # every fault of the connection is one
            raise GigawatchError(
                f"grafana {shown(self.url)}: does not answer ({type(error).__name__}); start it, or name its root with --url"
            ) from error

    def _found(self, what: str, call: Callable[[], Any]) -> Document | None:
        """A JSON object, or None for 404."""
        found = self.ask(what, call, missing=True)
        if found is not None and not isinstance(found, dict):
            raise self._not_grafana()
        return found

    def _not_grafana(self) -> GigawatchError:
        return GigawatchError(
            f"grafana {shown(self.url)}: does not answer as a Grafana does; name its root with --url, with the path "
            "that it is served under, without /api/…"
        )

    def _refusal(self, what: str, error: Any) -> GigawatchError:
        where = f"grafana {shown(self.url)}: {what}"
        if error.status_code == 0:
            return GigawatchError(f"{where}: no answer within {TIMEOUT:.0f} s; try again, or see its log")
        said = error.response if isinstance(error.response, dict) else {}
        if error.status_code == 404 and not said:
            return self._not_grafana()
        words = str(said.get("message", ""))[:200]
        return GigawatchError(f"{where}: {_remedy(error.status_code, words, str(said.get('status', '')))}")


def token_from(file: Path | None, environment: str | None) -> str:
    """The token of a service account, from a file or from $GRAFANA_TOKEN.  Raises SettingsError."""
    if file is None and not environment:
        raise SettingsError(
            f"push: found no token, expected --token-file or {TOKEN_VARIABLE}: a service account token with the role "
            "Editor, or Admin where the data source is to be made"
        )
    token = (read_secret(file) if file is not None else environment or "").strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise SettingsError(
            f"push: {file or TOKEN_VARIABLE} does not hold a token; expected one line of letters and digits"
        )
    return keep(token)


def plan(grafana: Grafana, documents: Sequence[Document], source: DataSource | None) -> list[Change]:
    """What a push would do, in order; reads only.  Raises GigawatchError for what Grafana would not let us save."""
    grafana.check()
    folder = (
        Change("folder Gigawatch", "unchanged")
        if grafana.folder()
        else Change("folder Gigawatch", "new", act=grafana.make_folder)
    )
    return [
        folder,
        _source_change(grafana, source),
        *(_dashboard_change(grafana, each) for each in documents),
    ]


def push(changes: Sequence[Change]) -> Iterator[Change]:
    """Does them; gives each when it is done."""
    for change in changes:
        change.act()
        yield change


def _source_change(grafana: Grafana, source: DataSource | None) -> Change:
    name, there = "data source Gigawatch", grafana.data_source()
    if there is not None and there.get("type") != "mysql":
        raise GigawatchError(
            f"grafana {shown(grafana.url)}: the data source with the uid {DATA_SOURCE} is a {there.get('type')!r}, "
            "expected mysql; delete it, or give it another uid"
        )
    if source is None:
        if there is None:
            raise GigawatchError(
                f"grafana {shown(grafana.url)}: no data source has the uid {DATA_SOURCE}; say where the SQL door is with "
                "--datasource HOST:PORT"
            )
        return Change(name, "unchanged")
    wanted = source.document()
    if there is None:
        return Change(name, "new", act=lambda: grafana.save_data_source(wanted, new=True))
    old = {key: there.get(key) for key in OURS_TO_KEEP} | {"jsonData": there.get("jsonData", {})}
    new = {key: wanted[key] for key in OURS_TO_KEEP} | {
        "jsonData": {**there.get("jsonData", {}), **wanted["jsonData"]}
    }
    if old == new and not wanted["secureJsonData"]:
        return Change(name, "unchanged")
    if there.get("readOnly"):
        raise GigawatchError(
            f"grafana {shown(grafana.url)}: the data source {DATA_SOURCE} is provisioned from files and cannot be changed; "
            "leave --datasource out, or change the file that it comes from"
        )
    merged = {**there, **wanted, "jsonData": new["jsonData"]}
    diff = _diff(old, new) or ["password and certificate are sent: what is there cannot be read"]
    return Change(name, "changed", diff, lambda: grafana.save_data_source(merged, new=False))


def _dashboard_change(grafana: Grafana, document: Document) -> Change:
    name = f"dashboard {document['title']}"
    there = grafana.dashboard(document["uid"])
    if there is None:
        return Change(name, "new", act=lambda: grafana.save({**document, "id": None}))
    old, meta = there["dashboard"], there.get("meta", {})
    if meta.get("provisioned"):
        raise GigawatchError(
            f"grafana {shown(grafana.url)}: {name} is provisioned from files, and cannot be saved by the API; change the "
            "files that it comes from, or take its provider away first"
        )
    diff = _diff(_compared(old), _compared(document))
    moved = meta.get("folderUid") != FOLDER
    if not diff and not moved:
        return Change(name, "unchanged")
    saved = {**document, "id": old.get("id"), "version": old.get("version")}
    return Change(
        name, "changed", diff or [f"moved to the folder {FOLDER_TITLE}"], lambda: grafana.save(saved)
    )


def _compared(document: Document) -> Document:
    """Without what every Grafana gives for itself."""
    return {key: value for key, value in document.items() if key not in ("id", "version")}


def _diff(old: Document, new: Document) -> list[str]:
    before, after = (
        json.dumps(each, indent=2, sort_keys=True, ensure_ascii=False).splitlines() for each in (old, new)
    )
    return list(difflib.unified_diff(before, after, "in Grafana", "from the code", n=1, lineterm=""))


def _root(url: str) -> str:
    root = checked_url(url, "url")
    parts = urlsplit(root)
    if parts.username or parts.password or parts.query or parts.fragment:
        raise SettingsError(
            f"url: found a user, a query or a fragment in {shown(root)}, expected scheme, host, port and path; the token "
            f"comes from --token-file or {TOKEN_VARIABLE}"
        )
    return root


def _remedy(status: int, words: str, kind: str) -> str:
    if status == 401:
        return (
            "refuses the token (HTTP 401); make one under Administration, Service accounts, with the role Editor, and "
            "put it into the token file"
        )
    if status == 403:
        return (
            f"the token may not do that (HTTP 403: {words!r}); give its service account the role Editor, and Admin for "
            "the data source"
        )
    if status == 412:
        return (
            f"Grafana does not save it (HTTP 412, {kind or 'precondition failed'}: {words!r}); somebody changed it "
            "meanwhile, or another dashboard has its name: look at it, then push again"
        )
    if status == 400 and "provisioned" in words.lower():
        return (
            f"is provisioned from files (HTTP 400: {words!r}); change the files, or take their provider away"
        )
    return f"HTTP {status}: {words!r}; see Grafana's log"
