-- Whether the pipeline lives, in one row: what is seen is of now only while its state is well
--
-- state: well; stalled: it runs and nothing progresses; stopped: in good order; silent: it has not published for a
--     minute, so it is dead or hangs; never: it has not published yet
-- since: Since when it is not well, UTC; NULL while it is well
-- why: Why it is not well, in words; NULL while it is well
-- published_at: When it last published, UTC
-- watermark: Event time up to which every topic was evaluated then, UTC
SELECT
    CASE WHEN last IS NULL THEN 'never' WHEN silent THEN 'silent' ELSE state END AS state,
    CASE WHEN silent THEN coalesce(since, last) ELSE since END AS since,
    CASE
        WHEN last IS NULL THEN 'nothing has been published yet'
        WHEN silent THEN concat(
            'it has published nothing since ', strftime(last, '%Y-%m-%d %H:%M:%S'), ' UTC: it is dead, or hangs',
            '; its last word: ' || why)
        ELSE why
    END AS why,
    last AS published_at,
    watermark
FROM (
    -- without a word for a minute a pipeline, which publishes every ten seconds, is dead, or as good as
    SELECT *, state <> 'stopped' AND epoch(make_timestamp(epoch_us(now()))) - epoch(last) > 60 AS silent
    FROM (
        SELECT
            max("time") AS last,
            coalesce(arg_min(state, urgency) FILTER (newest), 'well') AS state,
            min(since) FILTER (newest) AS since,
            arg_min(why, since) FILTER (newest) AS why,
            min(watermark) FILTER (newest) AS watermark
        FROM (
            SELECT
                *,
                "time" = max("time") OVER () AS newest,
                list_position(['stopped', 'stalled', 'well'], state) AS urgency
            FROM health
            WHERE date >= (SELECT max(date) FROM health))))
