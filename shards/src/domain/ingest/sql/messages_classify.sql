SELECT n::int4, code::int4 FROM (
    SELECT i.n, CASE WHEN t.id IS NULL THEN 4 ELSE {judge:t:i.meta:i.horizon} END AS code
    FROM unnest($4::text[], $5::date[], $6::jsonb[], $7::text[]) WITH ORDINALITY
        AS i (message_id, message_date, meta, horizon, n)
    LEFT JOIN LATERAL (
        SELECT m.id, m.last_metadata, m.updated_at FROM {schema}.messages m
        WHERE m.message_id = i.message_id {same_date}
        ORDER BY m.id + 0 LIMIT 1) t ON true
) judged WHERE code <> 0
