"""How long the board lets one wait for the first byte of its page, asked as a browser asks.

    python tests/bench/board.py 127.0.0.1:8420 [SECONDS]

Every request is a connection of its own, from the name look-up to the first byte of the answer.
"""

from __future__ import annotations

import http.client
import statistics
import sys
import time

EVERY = 0.05
"""Seconds between two requests."""


def first_bytes(address: str, seconds: float) -> list[float]:
    """Milliseconds to the first byte of each request during so many seconds; `address` is HOST:PORT.

    Raises OSError when the board is not there, ValueError for any answer but a page.
    """
    found, until = [], time.monotonic() + seconds
    while time.monotonic() < until:
        found.append(_first_byte(address))
        time.sleep(EVERY)
    return found


def _first_byte(address: str) -> float:
    connection = http.client.HTTPConnection(address, timeout=10)
    began = time.perf_counter()
    try:
        connection.request("GET", "/", headers={"Accept-Encoding": "gzip"})
        answer = connection.getresponse()  # the head of the answer has come
        took = (time.perf_counter() - began) * 1000
        if answer.status != 200 or not answer.read():
            raise ValueError(f"{address}: HTTP {answer.status}, expected the page")
        return took
    finally:
        connection.close()


def board_first_byte_p95_ms(address: str, seconds: float = 20.0) -> float:
    """The figure: the 95th percentile of the time to the first byte, in milliseconds."""
    return statistics.quantiles(first_bytes(address, seconds), n=20)[-1]


if __name__ == "__main__":
    print(f"{board_first_byte_p95_ms(sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 20.0):.2f} ms")
