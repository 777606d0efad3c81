"""From readings to verdicts to alert changes: pure functions of event time, one file for each kind of clause.

`readings` says what a clause wants to know; `capacity`, `power`, `queues`, `spend` and `telemetry` judge it;
`alerts` is the state machine, `evaluate` runs a stretch of instants, `annotate` writes for people, `reproduce`
writes the SQL that gives the same number.
"""
