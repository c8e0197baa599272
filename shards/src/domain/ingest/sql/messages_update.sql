WITH i AS (
    SELECT * FROM unnest($4::text[], $5::date[], $6::text[], $7::jsonb[], $8::bool[], $9::text[], $10::jsonb[],
        $11::text[]) WITH ORDINALITY
        AS i (message_id, hint, status, edited, is_deleted, url, meta, horizon, n)
),
old AS MATERIALIZED (
    SELECT i.*, coalesce(h.id, a.id) AS id, coalesce(h.message_date, a.message_date) AS message_date,
        CASE WHEN coalesce(h.id, a.id) IS NULL THEN 3
            ELSE {fate:coalesce(h.last_metadata, a.last_metadata):i.meta:i.horizon} END AS code
    FROM i
    LEFT JOIN LATERAL (
        SELECT m.id, m.message_date, m.last_metadata FROM {schema}.messages m
        WHERE m.message_id = i.message_id AND m.message_date = i.hint AND m.company_id = $1
        FOR NO KEY UPDATE) h ON true
    LEFT JOIN LATERAL (
        SELECT m.id, m.message_date, m.last_metadata FROM {schema}.messages m
        WHERE h.id IS NULL AND m.message_id = i.message_id AND m.company_id = $1
        ORDER BY m.id + 0 LIMIT 1
        FOR NO KEY UPDATE) a ON true
),
written AS (
    UPDATE {schema}.messages t SET
        status = coalesce(nullif(old.status, ''), t.status),
        edited_message_obj = coalesce(old.edited, t.edited_message_obj),
        is_deleted = old.is_deleted OR coalesce(t.is_deleted, false),
        message_url = coalesce(nullif(old.url, ''), t.message_url),
        last_metadata = old.meta,
        updated_at = $2
    FROM old
    WHERE old.code = 0 AND t.id = old.id AND t.message_date = old.message_date
)
SELECT n::int4, code::int4 FROM old WHERE code <> 0
