"""Which of all changes of alerts say how things stand: the newest of each alert that is not over.

It is published as one small file, for who asks what is wrong now, dozens of times a minute, would read every change of
ten years for it: a file for each day.
"""

from __future__ import annotations

from pipeline.rollup.quoting import quoted
from pipeline.views.published import ALERTS_NOW_TABLE

_RANK = """row("time", coalesce(fired_at, '-infinity'::TIMESTAMP), coalesce(resolved_at, '-infinity'::TIMESTAMP))"""
"""Which change of an alert is the newer one."""


def alerts_now_select(changes: str = "alerts") -> str:
    """The SELECT of `alerts_now`; `changes` is a relation with the rows of `alerts`.

    The newest change of each alert is found first, by the few columns that say so, and its other columns are read then:
    annotations are most of the bytes, and every change ever of every alert has some.  Its severity may have changed, and
    its label set with it.
    """
    names = ", ".join(quoted(name) for name, _ in ALERTS_NOW_TABLE.columns)
    return f"""SELECT {names} FROM (SELECT *, {_RANK} AS rank FROM {changes}) SEMI JOIN (
            SELECT alertname, contract, clause, labels, "time", rank FROM (
                SELECT alertname, contract, clause, labels, max("time") AS "time", max({_RANK}) AS rank
                FROM {changes} GROUP BY alertname, contract, clause, labels)
            QUALIFY row_number() OVER (
                PARTITION BY alertname, contract, clause, json_merge_patch(labels, '{{"severity": null}}')
                ORDER BY rank DESC) = 1) USING (alertname, contract, clause, labels, "time", rank)
        WHERE state NOT IN ('resolved', 'inactive')
        QUALIFY row_number() OVER (PARTITION BY alertname, contract, clause, labels) = 1
        ORDER BY ALL"""
