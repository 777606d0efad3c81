-- How old what you see is: the newest of each topic, and when the pipeline last published
--
-- topic: Topic
-- watermark: Event time up to which everything is taken in, UTC
-- age_seconds: Seconds from then until now
-- published_at: When the pipeline last said so, UTC
-- silent_seconds: Seconds since it did: above a minute the pipeline is down, or does not publish
-- lag: Records that wait in Kafka
SELECT
    topic,
    arg_max(watermark, "time") AS watermark,
    epoch(make_timestamp(epoch_us(now()))) - epoch(arg_max(watermark, "time")) AS age_seconds,
    max("time") AS published_at,
    epoch(make_timestamp(epoch_us(now()))) - epoch(max("time")) AS silent_seconds,
    arg_max(lag, "time") AS lag
FROM health
GROUP BY topic
