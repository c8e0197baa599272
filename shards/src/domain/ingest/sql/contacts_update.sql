WITH i AS (
    SELECT * FROM unnest($4::text[], $5::text[], $6::text[], $7::jsonb[], $8::text[]) WITH ORDINALITY
        AS i (phone_number, agent_id, push_name, meta, horizon, n)
),
old AS MATERIALIZED (
    SELECT i.*, t.id,
        CASE WHEN t.id IS NULL THEN 3 ELSE {fate:t.last_metadata:i.meta:i.horizon} END AS code
    FROM i
    LEFT JOIN LATERAL (
        SELECT c.id, c.last_metadata FROM {schema}.contacts c
        WHERE c.agent_id = i.agent_id AND c.phone_number = i.phone_number AND c.company_id = $1
        ORDER BY c.created_at, c.id LIMIT 1
        FOR NO KEY UPDATE) t ON true
),
written AS (
    UPDATE {schema}.contacts t SET push_name = old.push_name, last_metadata = old.meta, updated_at = $2
    FROM old WHERE old.code = 0 AND t.id = old.id
)
SELECT n::int4, code::int4 FROM old WHERE code <> 0
