-- The charges that count: the newest revision of each, and of deliveries only the newest whole one of an issuer, export
-- and billing period. `billing` has all that ever came
--
-- needs: billing, deliveries
--
-- time: When the charge was issued, UTC
-- x_columns: Custom columns x_…, as a JSON object
-- source: CloudEvents source: who sent it
-- id: CloudEvents id: unique for its source
-- idx: Place in the message's array of charges; 0 for a single one
-- known_from: First instant of evaluation that could see it, UTC
SELECT
    * EXCLUDE (date)
FROM billing
WHERE "DeliveryId" IS NULL OR "DeliveryId" IN ({counting})
QUALIFY row_number() OVER (PARTITION BY {revision} ORDER BY "time" DESC, known_from DESC) = 1
