"""One scrape: what an endpoint answers, bounded in bytes and time, or why it is down."""

from __future__ import annotations

import asyncio
import ssl
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import aiohttp

from pipeline.collect.targets import Target

MAX_BYTES = 32 * 2**20
"""Bytes of an answer, unpacked: a node of eight GPUs has 20 kB, a large Kueue a few MB."""
_CHUNK = 65_536


class Down(Exception):
    """A target gave no answer that can be read; `reason` is a short, countable phrase."""

    def __init__(self, reason: str, words: str) -> None:
        super().__init__(words)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class ScrapeOptions:
    """How endpoints are asked: `seconds` and `most` bytes, unpacked, for all of an answer; `headers` may hold a secret."""

    seconds: float = 10.0
    most: int = MAX_BYTES
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    tls: ssl.SSLContext | None = None


def session(options: ScrapeOptions, at_once: int) -> aiohttp.ClientSession:
    """A session for scrapes: no proxy, no cookies, nothing unpacked unseen; certificates and names are checked."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=at_once, ssl=options.tls or True),
        timeout=aiohttp.ClientTimeout(total=options.seconds),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"Accept-Encoding": "gzip", "User-Agent": "gigawatch", **options.headers},
        auto_decompress=False,
        trust_env=False,
    )


async def fetch(client: aiohttp.ClientSession, target: Target, most: int) -> bytes:
    """The body of the target's answer.  Raises Down: unreachable, too slow, too large, not 200, another's certificate.

    A redirect is not followed: where it leads, another's answer would stand for this target's.
    """
    try:
        async with client.get(target.url, allow_redirects=False) as answer:
            if 300 <= answer.status < 400:
                where = answer.headers.get("Location", "elsewhere")[:200]
                raise Down(
                    "redirected",
                    f"found a redirect to {where}; expected an answer: name that URL, if it is right",
                )
            if answer.status != 200:
                raise Down(f"status_{answer.status}", f"found status {answer.status}, expected 200")
            return await _body(answer, most)
    except aiohttp.ClientConnectorCertificateError as error:
        raise Down(
            "certificate",
            f"found a certificate that is not of this host or not trusted ({error.certificate_error}); name "
            "its authority with --ca-file",
        ) from error
    except TimeoutError as error:
        raise Down("timeout", "found no whole answer in time; see --timeout") from error
    except (aiohttp.ClientError, OSError, zlib.error, ValueError) as error:
        raise Down(_reason(error), f"cannot be read ({str(error) or type(error).__name__})") from error


def _reason(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorError):
        return "unreachable"
    return "broken_gzip" if isinstance(error, zlib.error) else "not_http"


async def _body(answer: aiohttp.ClientResponse, most: int) -> bytes:
    """All of the body, unpacked, as long as it is not larger than `most`: a bomb is never unpacked."""
    encoding = answer.headers.get("Content-Encoding", "identity").lower()
    if encoding not in ("identity", "gzip", "deflate"):
        raise Down("encoding", f"found the encoding {encoding[:40]!r}, expected gzip or none")
    unpack = None if encoding == "identity" else zlib.decompressobj(47)
    body = bytearray()
    async for chunk in answer.content.iter_chunked(_CHUNK):
        body += unpack.decompress(chunk, most - len(body) + 1) if unpack else chunk
        if len(body) > most:
            raise Down("too_large", f"found more than {most:,} bytes, expected a scrape")
        await asyncio.sleep(0)
    if unpack and not unpack.eof:
        raise Down("broken_gzip", "found a gzip stream that ends too early")
    return bytes(body)
