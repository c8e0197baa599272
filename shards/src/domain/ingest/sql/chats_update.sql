WITH i AS (
    SELECT * FROM unnest($4::text[], $5::int4[], $6::jsonb[], $7::int8[], $8::jsonb[], $9::text[]) WITH ORDINALITY
        AS i (chat_id, unread, last_message, conversation_timestamp, meta, horizon, n)
),
old AS MATERIALIZED (
    SELECT i.*, t.id, t.unread_count,
        CASE WHEN t.id IS NULL THEN 3 ELSE {fate:t.last_metadata:i.meta:i.horizon} END AS code
    FROM i
    LEFT JOIN LATERAL (
        SELECT c.id, c.unread_count, c.last_metadata FROM {schema}.chats c
        WHERE c.chat_id = i.chat_id AND c.company_id = $1
        FOR NO KEY UPDATE) t ON true
),
-- A chat may come several times, in order: what counts is the last value that was set and the ones behind it.
marked AS (
    SELECT *, max(n) FILTER (WHERE unread <> 1) OVER (PARTITION BY id) AS set_n FROM old WHERE code = 0
),
new AS (
    SELECT id,
        bool_or(unread IS NOT NULL) AS counts,
        least(coalesce(max(unread) FILTER (WHERE n = set_n), max(unread_count), 0)
            + count(*) FILTER (WHERE unread = 1 AND n > coalesce(set_n, 0)), 2147483647)::int4 AS unread,
        max(conversation_timestamp) AS conversation_timestamp,
        (array_agg(last_message ORDER BY n DESC) FILTER (WHERE last_message IS NOT NULL))[1] AS last_message,
        (array_agg(meta ORDER BY n DESC))[1] AS meta
    FROM marked GROUP BY id
),
written AS (
    UPDATE {schema}.chats t SET
        unread_count = CASE WHEN new.counts THEN new.unread ELSE t.unread_count END,
        conversation_timestamp = greatest(t.conversation_timestamp, new.conversation_timestamp),
        last_message = coalesce(new.last_message, t.last_message),
        last_metadata = new.meta,
        updated_at = $2
    FROM new WHERE t.id = new.id
)
SELECT n::int4, code::int4 FROM old WHERE code <> 0
