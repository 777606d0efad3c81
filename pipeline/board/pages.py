"""The page as finished bytes: templates, what goes with them under names that change with their content, answers.

Templates escape everything and know no undefined name.  A request is answered with what lies here ready.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline.board.page_model import Page
from pipeline.errors import SettingsError

FOLDER = Path(__file__).parent / "assets"
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".png": "image/png",
}
OWN_FILES = ("board.css", "board.js", "icon.png")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@dataclass(frozen=True, slots=True)
class Answer:
    """A body, the same compressed, its type, and an entity tag that changes with it."""

    body: bytes
    packed: bytes
    kind: str
    tag: str


def answer(body: bytes, kind: str, level: int = 6) -> Answer:
    """The body ready to be sent."""
    packed = gzip.compress(body, level, mtime=0)
    return Answer(body, packed, kind, hashlib.sha256(body).hexdigest()[:20])


class Pages:
    """Makes pages.  Raises SettingsError when the package is not whole."""

    def __init__(self) -> None:
        self._templates = Environment(
            loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
            lstrip_blocks=True, auto_reload=False,  # an upgrade under a running board must not mix new pages and old code
        )  # fmt: skip
        self._templates.filters.update(spoken=spoken, day=day)
        self.static: Mapping[str, Answer] = {
            f"/static/{answer.tag}/{name}": answer for name, answer in _static().items()
        }
        # without the first slash: behind a proxy the board may have a path of its own
        self._names = {path.rpartition("/")[2]: path.lstrip("/") for path in self.static}

    @cached_property
    def _page(self):  # type: ignore[no-untyped-def]  # a Jinja template
        return self._templates.get_template("page.html")

    def render(self, page: Page) -> Answer:
        """The page, ready to be sent."""
        text = self._page.render(
            page=page, static=self._names, bad=_is_bad(page), title=title(page), headline=headline(page), mood=mood(page),
            counts=counts(page),
        )  # fmt: skip
        return answer(text.encode(errors="replace"), "text/html; charset=utf-8")


def spoken(at: str) -> str:
    """An RFC 3339 instant as people read it: `25 Nov 02:11 UTC`."""
    return _formed(at, "%d %b %H:%M UTC")


def day(at: str) -> str:
    """The day of an RFC 3339 instant, with its year."""
    return _formed(at, "%d %b %Y")


def _formed(at: str, form: str) -> str:
    try:
        return f"{datetime.fromisoformat(at):{form}}"
    except ValueError:
        return at


def headline(page: Page) -> str:
    """The page in a line: what is wrong with it, and only when nothing is, how it stands."""
    return next((one.title for one in page.problems if one.level == "bad"), "") or counts(page)


def counts(page: Page) -> str:
    """How many alerts fire; of a page that is not of now, fired."""
    as_of = ", as of then" if _is_bad(page) else ""
    if not page.body.firing:
        calm = "No alert fired, as of then" if _is_bad(page) else "Nothing fires"
        return f"{calm}, {len(page.body.muted)} silenced" if page.body.muted else calm
    urgent = f", {page.body.critical} critical" if page.body.critical else ""
    return f"{page.body.firing} alert{'' if page.body.firing == 1 else 's'} firing{urgent}{as_of}"


def title(page: Page) -> str:
    """The tab's title: whether to look at all."""
    return f"{'STALE · ' if _is_bad(page) else ''}{headline(page)} · Gigawatch"


def mood(page: Page) -> str:
    """The headline's colour."""
    if _is_bad(page):
        return "dead"
    return "critical" if page.body.critical else "warning" if page.body.firing else "ok"


def _is_bad(page: Page) -> bool:
    return any(problem.level == "bad" for problem in page.problems)


def _static() -> dict[str, Answer]:
    found = {
        name: answer((FOLDER / name).read_bytes(), TYPES[Path(name).suffix], level=9) for name in OWN_FILES
    }
    return {**found, "dygraph.js": answer(_dygraph().read_bytes(), TYPES[".js"], level=9)}


def _dygraph() -> Path:
    """The script in the wheel `dygraphs`; found without importing the package, which loads much else."""
    spec = importlib.util.find_spec("dygraphs")
    places = list(spec.submodule_search_locations or ()) if spec else []
    file = Path(places[0], "assets", "dygraph-combined.js") if places else Path("dygraph-combined.js")
    if not file.is_file():
        raise SettingsError(f"board: found no {file}; install the package dygraphs as pyproject.toml pins it")
    return file
