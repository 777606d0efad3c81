"""From bytes to the nodes of a YAML file, with the YAML library's complaints in words that help."""

from __future__ import annotations

import re

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import Node
from ruamel.yaml.reader import ReaderError

from pipeline.contract.faults import ContractRefused, Fault

#: The YAML library takes seconds to stumble over endless brackets; no contract opens so many at once.
_ENDLESS = re.compile(r"(?:[\[{][ \t\r\n]*){31}")


def compose(raw: bytes, file: str) -> Node | None:
    """The root node; None for a file without a value.  Raises ContractRefused (a ContractError) with the place."""
    text = _decode(raw, file)
    if endless := _ENDLESS.search(text):
        place = _place(text[: endless.start()])
        raise ContractRefused([Fault(file, *place, "", "endless nesting", "a contract")])
    try:
        node: Node | None = YAML(typ="rt", pure=True).compose(text)
        return node
    except RecursionError as error:
        raise ContractRefused([Fault(file, 0, 0, "", "endless nesting", "a contract")]) from error
    except ReaderError as error:
        place = _place(text[: error.position])
        found = f"the character U+{error.character:04X}"
        raise ContractRefused([Fault(file, *place, "", found, "printable text")]) from error
    except MarkedYAMLError as error:
        raise ContractRefused([_fault(error, text, file)]) from error
    except YAMLError as error:
        raise ContractRefused(
            [Fault(file, 0, 0, "", str(error).splitlines()[0], "YAML 1.2 or JSON")]
        ) from error


def _decode(raw: bytes, file: str) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        place = _place(raw[: error.start].decode("utf-8", "replace"))
        found = f"the byte 0x{raw[error.start]:02X}"
        hint = "save the file as UTF-8"
        raise ContractRefused([Fault(file, *place, "", found, "text in UTF-8", hint)]) from error


def _place(before: str) -> tuple[int, int]:
    """Line and column, from 1, of what follows `before`."""
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1


def _fault(error: MarkedYAMLError, text: str, file: str) -> Fault:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line, mark.column) if mark else (0, 0)
    lines = text.split("\n")
    source = lines[line] if line < len(lines) else ""  # YAML knows line breaks that we do not
    indent = source[: len(source) - len(source.lstrip())]
    if "\t" in indent and column <= len(indent):
        place = (line + 1, indent.index("\t") + 1)
        return Fault(file, *place, "", "a tab", "spaces", "YAML does not indent with tabs")
    place = (line + 1, column + 1)
    problem = (error.problem or "").removeprefix("found ")
    if "another document" in problem:
        return Fault(file, *place, "", "a second document ('---')", "one contract in each file")
    found = f"a syntax error ({problem}{' ' + error.context if error.context else ''})"
    return Fault(file, *place, "", found, "YAML 1.2 or JSON", _hint(problem))


def _hint(problem: str) -> str:
    if "mapping values are not allowed" in problem:
        return "text that contains ': ' needs quotes, and the fields of one thing the same indentation"
    if "cannot start any token" in problem:
        return "text that begins with such a character needs quotes"
    if "undefined alias" in problem:
        return "text that begins with '*' needs quotes"
    return "is a quote or bracket left open before this place, or the indentation uneven?"
