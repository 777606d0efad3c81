"""`gigawatch board`: one page that says how everything stands, in a process of its own beside the pipeline.

It reads the published files and the status file, nothing else.  Rows are read (`published_rows`), become a page
(`page_model`), bytes (`pages`), and lie ready (`watch`) before anybody asks.  This file opens the board
and closes it.
"""

from __future__ import annotations

import asyncio
import json
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from pipeline import catalog
from pipeline.board.access import LOCAL_NAMES, Gate
from pipeline.board.card_links import Elsewhere
from pipeline.board.connections import BODY_SECONDS, REQUEST_SECONDS, ConnectionListener, quieten
from pipeline.board.metrics import KIND, exposition
from pipeline.board.pages import Answer, Pages
from pipeline.board.silences import AlertmanagerStatus
from pipeline.board.watch import Watch
from pipeline.errors import GigawatchError, SettingsError
from pipeline.serve import status_report as outside
from pipeline.serve.child import ready
from pipeline.serve.listening import Listening, await_end_of_input, opens_beyond, spelled, tls_context
from pipeline.serve.users import Authenticator, read_users

FOR_EVER = "public, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class BoardOptions(Listening):
    """What a board is opened with; `alertmanager` is where silences are asked for, the last two are where cards lead."""

    port: int = 8420
    alertmanager: str | None = None
    alertmanager_external_url: str | None = None
    grafana_url: str | None = None


def run_board(options: BoardOptions, child: bool = False) -> None:
    """Serves until SIGINT or SIGTERM, and as a `child` until its standard input ends.

    Raises SettingsError, also for a directory on which no pipeline has ever run: a page about nothing looks like peace.
    """
    beyond = opens_beyond("board", options.bind, options.users, options.tls_cert, options.tls_key)
    authenticator = Authenticator(read_users(options.users)) if options.users else None
    gate = Gate(authenticator, None if beyond else LOCAL_NAMES | {options.bind})
    alertmanager = AlertmanagerStatus(options.alertmanager) if options.alertmanager else None
    if not child:  # beside a `run` it may come before the first status
        outside.status_written(options.data)
    elsewhere = Elsewhere(
        options.alertmanager_external_url or (alertmanager.address if alertmanager else ""),
        options.grafana_url or "",
    )
    watch = Watch(options.data, catalog.load(options.schemas), Pages(), alertmanager, elsewhere)
    asyncio.run(_serve(options, gate, watch, child))


async def _serve(options: BoardOptions, gate: Gate, watch: Watch, child: bool) -> None:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    if child:
        threading.Thread(target=await_end_of_input, args=(loop, stop), daemon=True).start()
    quieten()
    runner = web.AppRunner(
        application(options.data, gate, watch), access_log=None, handle_signals=False, shutdown_timeout=2.0,
        keepalive_timeout=REQUEST_SECONDS, lingering_time=BODY_SECONDS,
    )  # fmt: skip
    await runner.setup()
    assert runner.server is not None
    listener = ConnectionListener(runner.server, tls_context(options.tls_cert, options.tls_key))
    try:
        address = await _listen(listener, options)
        watch.start()
        print(f"{ready('board')}{spelled(*address)}", flush=True)
        await stop.wait()
    finally:
        await listener.close()
        await runner.cleanup()
        await asyncio.to_thread(watch.stop)


async def _listen(listener: ConnectionListener, options: BoardOptions) -> tuple[str, int]:
    try:
        return await listener.open(options.bind, options.port)
    except OSError as error:
        raise SettingsError(
            f"--port {options.port}: the board cannot be opened at {options.bind} ({error.strerror}); "
            "another one may be open there: name a free port, with --board HOST:PORT where it opens beside `run`"
        ) from error


def application(data: Path, gate: Gate, watch: Watch) -> web.Application:
    """All that can be asked; every answer goes through the gate."""
    answers = _Answers(data, watch)
    app = web.Application(middlewares=[gate.middleware], client_max_size=1024)
    app.router.add_get("/", answers.page)
    app.router.add_get("/healthz", answers.healthz)
    app.router.add_get("/readyz", answers.readyz)
    app.router.add_get("/metrics", answers.metrics)
    app.router.add_get("/status.json", answers.status)
    for path, file in watch.static.items():
        app.router.add_get(path, _fixed(file))
    return app


class _Answers:
    def __init__(self, data: Path, watch: Watch) -> None:
        self._data, self._watch = data, watch

    async def page(self, request: web.Request) -> web.Response:
        return sent(request, self._watch.current(), "no-cache")

    async def healthz(self, request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(self, request: web.Request) -> web.Response:
        ready, why = self._watch.ready(time.time())
        return web.Response(status=200 if ready else 503, text=f"{why}\n")

    async def metrics(self, request: web.Request) -> web.Response:
        return web.Response(
            body=exposition(self._watch.seen, time.time()), headers={"Content-Type": KIND, "Cache-Control": "no-store"}
        )  # fmt: skip

    async def status(self, request: web.Request) -> web.Response:
        """As `gigawatch status --json` says it, with the lag as the pipeline last saw it: Kafka is not asked."""
        try:
            found, state = outside.status_written(self._data)
            return _json(200, outside.as_json(found, state))
        except GigawatchError as error:
            return _json(503, {"error": str(error)})


def sent(request: web.Request, answer: Answer, keep: str) -> web.Response:
    """The answer compressed where that is understood; 304 where the browser has it."""
    packed = "gzip" in request.headers.get("Accept-Encoding", "")
    tag = f'"{answer.tag}{"-gz" if packed else ""}"'
    headers = {"ETag": tag, "Cache-Control": keep, "Vary": "Accept-Encoding"}
    if tag in request.headers.get("If-None-Match", ""):
        return web.Response(status=304, headers=headers)
    if packed:
        headers["Content-Encoding"] = "gzip"
    headers["Content-Type"] = answer.kind
    return web.Response(body=answer.packed if packed else answer.body, headers=headers)


def _fixed(answer: Answer) -> Any:
    async def handler(request: web.Request) -> web.Response:
        return sent(request, answer, FOR_EVER)

    return handler


def _json(code: int, document: Any) -> web.Response:
    text = json.dumps(document, indent=1, ensure_ascii=False)
    return web.Response(
        status=code, text=text, content_type="application/json", headers={"Cache-Control": "no-store"}
    )
