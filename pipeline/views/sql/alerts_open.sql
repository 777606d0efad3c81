-- Every alert that is pending or fires now, whatever its clause
--
-- severity: critical, warning, ticket or info
-- urgency: The severity as a number to sort by: 0 is critical
-- state: firing or pending
-- alertname: What is wrong
-- contract: Contract, by its id
-- clause: Clause, by its id
-- labels: All labels, as a JSON object
-- about: The values that it is split by, in words
-- active_at: First instant of the unbroken run of breaches, UTC
-- fired_at: When it fired; NULL while pending
-- observed: What was read when it fired, or when it last changed
-- now: What is read now
-- now_at: Instant of that reading, UTC
-- bound: What is allowed or promised
-- unit: Unit of all three
-- window: Business-critical window that the bound comes from
-- summary: In one line
-- text: The clause in words
-- missing: Which GPUs are not delivered: failed, gone or silent, how many, since when
-- worst: The racks and nodes that most of them are in
-- meters: What the meters of the sites that fell silent show, and what that probably means
-- at_risk: Money, GPUs or megawatts at risk, in words
-- blinds: Clauses that cannot be vouched for because of it
-- opens: When the window opens that it is about, as text
-- risk_per_hour: What an hour of breach is said to cost, in the contract's currency
-- stale: It fires, but its last reading could not vouch for it
-- runbook: What to do
-- contact: Whom to call
-- sql: The query that gives the number
-- rows_sql: The query that lists what is missing, row by row
SELECT
    a.severity,
    list_position(['critical', 'warning', 'ticket', 'info'], a.severity) - 1 AS urgency,
    CASE WHEN a.fired_at IS NULL THEN 'pending' ELSE 'firing' END AS state,
    a.alertname,
    a.contract,
    a.clause,
    a.labels,
    {about} AS about,
    a.active_at,
    a.fired_at,
    a.observed,
    s.observed AS now,
    s."time" AS now_at,
    a.bound,
    a.unit,
    a."window",
    a.annotations ->> '$.summary' AS summary,
    a.annotations ->> '$.text' AS "text",
    -- what is known now, else what was when it changed
    coalesce(s.facts ->> '$.missing', a.annotations ->> '$.missing') AS missing,
    coalesce(s.facts ->> '$.worst', a.annotations ->> '$.worst') AS worst,
    coalesce(s.facts ->> '$.meters', a.annotations ->> '$.meters') AS meters,
    coalesce(s.facts ->> '$.at_risk', a.annotations ->> '$.at_risk') AS at_risk,
    a.annotations ->> '$.blinds' AS blinds,
    a.annotations ->> '$.opens' AS opens,
    c.risk_per_hour,
    a.state = 'stale' AS stale,
    a.annotations ->> '$.runbook' AS runbook,
    a.annotations ->> '$.contact' AS contact,
    a.annotations ->> '$.sql' AS "sql",
    a.annotations ->> '$.rows_sql' AS rows_sql
FROM alerts_now a
LEFT JOIN clauses c ON c.contract = a.contract AND c.clause = a.clause
LEFT JOIN standing s
    ON s.alertname = a.alertname AND s.contract = a.contract AND s.clause = a.clause AND s.labels = a.labels
