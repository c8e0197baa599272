WITH i AS (
    SELECT * FROM unnest($4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::jsonb[], $10::text[])
        WITH ORDINALITY AS i (id, phone_number, agent_id, push_name, chat_id, meta, horizon, n)
),
old AS MATERIALIZED (
    SELECT o.*, {free_chat} AS free_chat
    FROM (
        SELECT i.*, t.id AS found, t.chat_id AS old_chat,
            CASE WHEN t.id IS NULL THEN 0 ELSE {code} END AS code,
            {fills} AS fills
        FROM i
        LEFT JOIN LATERAL (
            SELECT c.id, c.chat_id, c.push_name, c.last_metadata, c.updated_at FROM {schema}.contacts c
            WHERE {found} LIMIT 1
            FOR NO KEY UPDATE) t ON true
        OFFSET 0) o
),
made AS (
    INSERT INTO {schema}.contacts (id, phone_number, agent_id, push_name, chat_id, company_id, gender, status,
        last_metadata, created_at, updated_at)
    SELECT {free_id}, phone_number, agent_id, push_name, free_chat, $1, 'MALE', 'ACTIVE', meta, $2, $2
    FROM old WHERE found IS NULL
    ON CONFLICT DO NOTHING
    RETURNING 1
),
written AS (
    UPDATE {schema}.contacts t SET
        push_name = old.push_name,
        chat_id = coalesce(nullif(t.chat_id, ''), old.free_chat),
        last_metadata = CASE WHEN old.fills THEN t.last_metadata ELSE old.meta END,
        updated_at = $2
    FROM old WHERE old.code = 0 AND t.id = old.found
)
SELECT n::int4, code::int4 FROM old WHERE code <> 0
UNION ALL
SELECT -1, 4 WHERE (SELECT count(*) FROM made) < (SELECT count(*) FROM old WHERE found IS NULL)
