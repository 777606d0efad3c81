-- What each clause has come to, now and 24 hours before: money spent and forecast as known at both instants; GPU-hours
-- and breaches of the 24 hours up to each. Now is the newest instant evaluated, so a replayed day has its own
--
-- contract: Contract, by its id
-- clause: Clause, by its id
-- by_values: The values that the clause is split by, as a JSON object
-- quantity: spent, forecast, gpu_hours (delivered, as the clause counts), breaches (times that it went out of bounds)
--     or breach_minutes
-- unit: The contract's currency for money; h, times or min
-- yesterday: The quantity 24 hours before; NULL: nothing is known of then
-- now: The quantity now
-- change: now less yesterday
-- yesterday_hours: Hours of the 24 up to then that have a reading which is not unknown: with fewer, sums are short
-- now_hours: The same of the 24 hours up to now
-- as_of: The instant that now is, UTC
WITH newest AS (
    SELECT date_trunc('minute', max("time")) AS as_of FROM standing SEMI JOIN clauses USING (contract, clause)
),
instants AS (
    SELECT
        contract,
        clause,
        by_values,
        "time",
        as_of,
        "time" > as_of - INTERVAL 24 HOUR AS recent,
        "time" = date_trunc('minute', "time") AS full_minute,
        bool_or(state = 'breach') AS breach,
        bool_or(state <> 'unknown') AS known,
        max(observed) FILTER (alertname IN ({gpu_hours_alerts})) AS gpus,
        max(TRY_CAST(facts ->> '$.spent' AS DECIMAL(38, 15))) AS spent,
        max(TRY_CAST(coalesce(facts ->> '$.forecast', observed::VARCHAR) AS DECIMAL(38, 15)))
            FILTER (alertname IN ({forecast_alerts})) AS forecast
    FROM readings, newest
    WHERE "time" > as_of - INTERVAL 48 HOUR AND "time" <= as_of
    GROUP BY ALL
),
told AS (
    SELECT
        *,
        breach AND NOT coalesce(lag(breach) OVER (PARTITION BY contract, clause, by_values ORDER BY "time"), false)
            AS begins
    FROM instants
),
sums AS (
    SELECT
        contract,
        clause,
        by_values,
        as_of,
        arg_max(spent, "time") FILTER (NOT recent) AS spent_then,
        arg_max(spent, "time") FILTER (recent) AS spent_now,
        arg_max(forecast, "time") FILTER (NOT recent) AS forecast_then,
        arg_max(forecast, "time") FILTER (recent) AS forecast_now,
        sum(gpus * full_minute::INT) FILTER (NOT recent) AS gpus_then,
        sum(gpus * full_minute::INT) FILTER (recent) AS gpus_now,
        sum(begins::INT) FILTER (NOT recent) AS breaches_then,
        sum(begins::INT) FILTER (recent) AS breaches_now,
        sum((breach AND full_minute)::INT) FILTER (NOT recent) AS minutes_then,
        sum((breach AND full_minute)::INT) FILTER (recent) AS minutes_now,
        sum((known AND full_minute)::INT) FILTER (NOT recent) AS known_then,
        sum((known AND full_minute)::INT) FILTER (recent) AS known_now
    FROM told
    GROUP BY ALL
),
quantities AS (
    SELECT contract, clause, by_values, as_of, known_then, known_now, unnest([
        struct_pack(quantity := 'spent', unit := currency, yesterday := spent_then, now := spent_now),
        struct_pack(quantity := 'forecast', unit := currency, yesterday := forecast_then, now := forecast_now),
        struct_pack(
            quantity := 'gpu_hours', unit := 'h',
            yesterday := round(gpus_then / 60, 6)::DECIMAL(38, 15), now := round(gpus_now / 60, 6)::DECIMAL(38, 15)
        ),
        struct_pack(
            quantity := 'breaches', unit := 'times',
            yesterday := breaches_then::DECIMAL(38, 15), now := breaches_now::DECIMAL(38, 15)
        ),
        struct_pack(
            quantity := 'breach_minutes', unit := 'min',
            yesterday := minutes_then::DECIMAL(38, 15), now := minutes_now::DECIMAL(38, 15)
        )
    ], recursive := true)
    FROM sums
    JOIN (SELECT contract, clause, currency FROM clauses) USING (contract, clause)
)
SELECT
    contract,
    clause,
    by_values,
    quantity,
    unit,
    yesterday,
    now,
    now - yesterday AS change,
    coalesce(known_then, 0) / 60 AS yesterday_hours,
    coalesce(known_now, 0) / 60 AS now_hours,
    as_of
FROM quantities
WHERE yesterday IS NOT NULL OR now IS NOT NULL
