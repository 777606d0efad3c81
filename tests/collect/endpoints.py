"""Real HTTP servers on the loopback: exporters that answer, and those that do everything else."""

from __future__ import annotations

import contextlib
import gzip
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

Answer = Callable[[BaseHTTPRequestHandler], None]


class Endpoint:
    """A server that answers each path as `answers` says; `asked` are the paths, `headers` those of the last request."""

    def __init__(self, answers: Mapping[str, Answer | bytes], tls: tuple[Path, Path] | None = None) -> None:
        self.answers, self.asked = dict(answers), list[str]()
        self.headers: dict[str, str] = {}
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                endpoint.asked.append(self.path)
                endpoint.headers = dict(self.headers)
                answer = endpoint.answers.get(path)
                with contextlib.suppress(ConnectionError, BrokenPipeError, ssl.SSLError):
                    if answer is None:
                        self.send_error(404)
                    elif isinstance(answer, bytes):
                        body(self, answer)
                    else:
                        answer(self)

            def log_message(self, *_: Any) -> None:
                """Says nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        scheme = "http"
        if tls:
            context, scheme = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), "https"
            context.load_cert_chain(*tls)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.address = f"127.0.0.1:{self._server.server_port}"
        self.url = f"{scheme}://{self.address}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )

    def __enter__(self) -> Endpoint:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def body(request: BaseHTTPRequestHandler, data: bytes, status: int = 200, **headers: str) -> None:
    request.send_response(status)
    for name, value in headers.items():
        request.send_header(name.replace("_", "-"), value)
    request.send_header("Content-Length", str(len(data)))
    request.end_headers()
    request.wfile.write(data)


def gzipped(data: bytes) -> Answer:
    return lambda request: body(request, gzip.compress(data), Content_Encoding="gzip")


def bomb(megabytes: int) -> Answer:
    """Zeros that pack a thousand to one, packed twice over a stream."""
    packed = gzip.compress(b"\0" * 2**20 * megabytes, 9)
    return lambda request: body(request, packed, Content_Encoding="gzip")


class ForEver:
    """Lines without an end, as fast as they are read; `written` bytes until nobody read them any more."""

    written = 0

    def __call__(self, request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        lines = b'DCGM_FI_DEV_GPU_UTIL{gpu="0",UUID="GPU-1"} 1\n' * 1000
        while True:
            request.wfile.write(lines)
            self.written += len(lines)


def drip(request: BaseHTTPRequestHandler) -> None:
    """A byte now and then: never silent, never done."""
    request.send_response(200)
    request.end_headers()
    for _ in range(600):
        request.wfile.write(b"#")
        request.wfile.flush()
        time.sleep(0.05)


def redirect(where: str) -> Answer:
    return lambda request: body(request, b"", 302, Location=where)


def endless_headers(request: BaseHTTPRequestHandler) -> None:
    request.wfile.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        request.wfile.write(b"X-More: " + b"x" * 1000 + b"\r\n")


def no_http(request: BaseHTTPRequestHandler) -> None:
    request.wfile.write(b"\x16\x03\x01\x00\xa5 this is no HTTP\r\n\r\n")


def cut_off(request: BaseHTTPRequestHandler) -> None:
    """Fewer bytes than were announced."""
    request.send_response(200)
    request.send_header("Content-Length", "1000")
    request.end_headers()
    request.wfile.write(b"some")
    request.close_connection = True


@contextlib.contextmanager
def endpoint(
    answers: Mapping[str, Answer | bytes], tls: tuple[Path, Path] | None = None
) -> Iterator[Endpoint]:
    with Endpoint(answers, tls) as one:
        yield one
