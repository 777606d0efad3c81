"""What a check finds, and how a terminal and a script are told: worst first, then what to do about it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rich.console import Group, RenderableType
from rich.text import Text

from pipeline.serve.terminal import add, clean, plain_table

Verdict = Literal["fail", "warn", "ok"]
VERDICTS: tuple[Verdict, ...] = ("fail", "warn", "ok")
STYLES = {"fail": "bold red", "warn": "yellow", "ok": "green"}


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found; `remedy` is what to do, empty when nothing is."""

    check: str
    verdict: Verdict
    found: str
    remedy: str = ""


def ok(check: str, found: str) -> Finding:
    return Finding(check, "ok", found)


def warn(check: str, found: str, remedy: str) -> Finding:
    return Finding(check, "warn", found, remedy)


def fail(check: str, found: str, remedy: str) -> Finding:
    return Finding(check, "fail", found, remedy)


def worst(findings: Iterable[Finding]) -> Verdict:
    """The worst verdict among `findings`; `ok` when there is none."""
    return min((finding.verdict for finding in findings), key=VERDICTS.index, default="ok")


def as_document(findings: Sequence[Finding]) -> dict[str, Any]:
    """One document for scripts, in the order of the checks."""
    return {
        "verdict": worst(findings),
        "checks": [
            {"check": f.check, "verdict": f.verdict, "found": f.found, "remedy": f.remedy} for f in findings
        ],
    }


def page(findings: Sequence[Finding]) -> RenderableType:
    """The table, worst first, and under it what to do, whole: the table cuts what is wider than the terminal."""
    ordered = sorted(findings, key=lambda finding: VERDICTS.index(finding.verdict))
    table = plain_table("", "check", "found", keep=("check",))
    for f in ordered:
        add(table, Text(f.verdict, STYLES[f.verdict]), clean(f.check), clean(f.found))
    parts: list[RenderableType] = [table, Text("")]
    wrong = [finding for finding in ordered if finding.verdict != "ok"]
    if wrong:
        parts.append(Text("What to do", "bold"))
    for f in wrong:
        parts.append(Text(f"{f.verdict}  {f.check}: ", STYLES[f.verdict]) + Text(clean(f.found), "not bold"))
        parts.append(Text(f"      {clean(f.remedy)}"))
    return Group(*parts, Text(_sum(findings)))


def _sum(findings: Sequence[Finding]) -> str:
    counts = {verdict: sum(f.verdict == verdict for f in findings) for verdict in VERDICTS}
    return f"{counts['fail']} failed, {counts['warn']} to look at, {counts['ok']} in order"
