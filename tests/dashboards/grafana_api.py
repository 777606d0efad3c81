"""A small HTTP server that keeps to Grafana's contract, as far as a push needs it.  It is not Grafana: CI has none.

From Grafana's HTTP API reference and the behaviour of version 8 to 13: statuses and bodies of folders, data sources and
dashboards; a save that names another version than the stored one is answered 412 `version-mismatch`, a provisioned
dashboard 400, a token that is not known 401, one without the permission 403.
"""

from __future__ import annotations

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

TOKEN = "glsa_editor"
VIEWER = "glsa_viewer"
Answer = tuple[int, Any]


class FakeGrafana:
    """Folders, data sources and dashboards in memory, behind an address on the loopback; `writes` counts changes."""

    def __init__(self, prefix: str = "") -> None:
        self.folders: dict[str, Any] = {}
        self.sources: dict[str, Any] = {}
        self.dashboards: dict[str, Any] = {}
        self.provisioned: set[str] = set()
        self.writes = 0
        self.before_save: Any = None
        self._prefix = prefix
        grafana = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def handle_any(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length)) if length else None
                token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
                status, answer = grafana.answer(self.command, self.path, body, token)
                data = json.dumps(answer).encode() if not isinstance(answer, str) else answer.encode()
                self.send_response(status)
                kind = "text/html" if isinstance(answer, str) else "application/json"
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PUT = handle_any

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}{prefix}"

    def __enter__(self) -> FakeGrafana:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, method: str, path: str, body: Any, token: str) -> Answer:
        if not path.startswith(f"{self._prefix}/api/"):
            return 404, "<html>Grafana's front page</html>"
        path = path.removeprefix(f"{self._prefix}/api")
        if path == "/health":
            return 200, {"database": "ok", "version": "13.1.3", "commit": "0"}
        if token not in (TOKEN, VIEWER):
            return 401, {"message": "Invalid API key", "messageId": "api-key.invalid", "statusCode": 401}
        if method != "GET" and token == VIEWER:
            return 403, {
                "message": "You'll need additional permissions to perform this action",
                "title": "Access denied",
            }
        for pattern, name in self._ROUTES:
            if found := re.fullmatch(pattern, f"{method} {path}"):
                answer: Answer = getattr(self, name)(body, *found.groups())
                return answer
        return 404, {"message": "Not found"}

    _ROUTES = (
        (r"GET /folders/([\w-]+)", "_get_folder"),
        (r"POST /folders", "_make_folder"),
        (r"GET /datasources/uid/([\w-]+)", "_get_source"),
        (r"POST /datasources", "_make_source"),
        (r"PUT /datasources/uid/([\w-]+)", "_put_source"),
        (r"GET /dashboards/uid/([\w-]+)", "_get_dashboard"),
        (r"POST /dashboards/db", "_save"),
    )

    def _get_folder(self, _: Any, uid: str) -> Answer:
        found = self.folders.get(uid)
        return (200, found) if found else (404, {"message": "folder not found", "status": "not-found"})

    def _make_folder(self, body: Any) -> Answer:
        if body["uid"] in self.folders:
            return 412, {"message": "a folder with that name already exists", "status": "name-exists"}
        self.writes += 1
        self.folders[body["uid"]] = {"id": len(self.folders) + 1, "uid": body["uid"], "title": body["title"]}
        return 200, self.folders[body["uid"]]

    def _get_source(self, _: Any, uid: str) -> Answer:
        found = self.sources.get(uid)
        return (200, found) if found else (404, {"message": "Data source not found"})

    def _make_source(self, body: Any) -> Answer:
        if body["uid"] in self.sources:
            return 409, {"message": "data source with the same name already exists"}
        self._keep_source(body)
        return 200, {"message": "Datasource added", "datasource": self.sources[body["uid"]]}

    def _put_source(self, body: Any, uid: str) -> Answer:
        if self.sources[uid]["readOnly"]:
            return 403, {"message": "Cannot update read-only data source"}
        self._keep_source(body)
        return 200, {"message": "Datasource updated", "datasource": self.sources[uid]}

    def _keep_source(self, body: Any) -> None:
        self.writes += 1
        secrets = body.pop("secureJsonData", {})
        self.secrets = {**getattr(self, "secrets", {}), **secrets}
        flags = dict.fromkeys(self.secrets, True)
        self.sources[body["uid"]] = {"readOnly": False, **body, "id": 1, "secureJsonFields": flags}

    def _get_dashboard(self, _: Any, uid: str) -> Answer:
        if (found := self.dashboards.get(uid)) is None:
            return 404, {"message": "Dashboard not found"}
        meta = {"folderUid": found["folderUid"], "provisioned": uid in self.provisioned}
        return 200, {"dashboard": found["dashboard"], "meta": meta}

    def _save(self, body: Any) -> Answer:
        if self.before_save is not None:
            self.before_save(self)
        dashboard = body["dashboard"]
        uid, stored = dashboard["uid"], self.dashboards.get(dashboard["uid"])
        if uid in self.provisioned:
            return 400, {"message": "Cannot save provisioned dashboard"}
        if body["folderUid"] not in self.folders:
            return 400, {"message": "folder not found"}
        if stored is not None and not body.get("overwrite"):
            if dashboard.get("id") is None:
                return 412, {
                    "message": "A dashboard with the same uid already exists",
                    "status": "name-exists",
                }
            if dashboard.get("version") != stored["dashboard"]["version"]:
                words = "The dashboard has been changed by someone else"
                return 412, {"message": words, "status": "version-mismatch"}
        self.writes += 1
        version = stored["dashboard"]["version"] + 1 if stored else 1
        number = stored["dashboard"]["id"] if stored else len(self.dashboards) + 1
        self.dashboards[uid] = {
            "dashboard": {**dashboard, "id": number, "version": version},
            "folderUid": body["folderUid"],
        }
        return 200, {"id": number, "uid": uid, "status": "success", "version": version, "url": f"/d/{uid}/x"}
