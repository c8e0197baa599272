SELECT n::int4, code::int4 FROM (
    SELECT i.n, CASE WHEN t.id IS NULL THEN 4 ELSE {judge:t:i.meta:i.horizon} END AS code
    FROM unnest($4::text[], $5::jsonb[], $6::text[]) WITH ORDINALITY AS i (chat_id, meta, horizon, n)
    LEFT JOIN {schema}.chats t ON t.chat_id = i.chat_id
) judged WHERE code <> 0
