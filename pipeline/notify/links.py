"""Where an alert leads: the anchor of its card on the board, the same for the board and for whoever is called."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import msgspec

from pipeline.rules.alert_message import AlertMessage

ALWAYS = "Watchdog"
"""It fires always and has no card: it leads to the board as a whole."""
PASSING = ("alertname", "severity")
"""Labels that an anchor does not follow from: the name stands apart, and a severity changes while an alert is open."""


def anchor_of(alertname: str, labels: Mapping[str, str]) -> str:
    """The id of an alert's card in the page: of what the alert is about, whatever its severity becomes."""
    told = {name: value for name, value in labels.items() if name not in PASSING}
    whole = json.dumps([alertname, sorted(told.items())], ensure_ascii=False)
    return f"alert-{hashlib.sha256(whole.encode(errors='surrogatepass')).hexdigest()[:12]}"


def linked(change: AlertMessage, public_url: str) -> AlertMessage:
    """The same change with a link to its card on the board that people open at `public_url`; none without it."""
    if not public_url:
        return change
    anchor = "" if change.alertname == ALWAYS else f"#{anchor_of(change.alertname, change.labels)}"
    card = f"{public_url}/{anchor}"
    return msgspec.structs.replace(change, generator_url=card)
