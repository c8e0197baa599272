WITH i AS (
    SELECT * FROM unnest($4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::int8[], $10::bool[],
        $11::text[], $12::text[], $13::text[], $14::jsonb[], $15::text[]) WITH ORDINALITY
        AS i (id, phone_number, agent_id, chat_id, message_id, message_timestamp, is_campaign, tags, assigned_to,
        origin, meta, horizon, n)
),
old AS MATERIALIZED (
    SELECT o.*, {free_chat} AS free_chat
    FROM (
        SELECT i.*, t.id AS found, coalesce(t.tags, '') AS old_tags, coalesce(t.assigned_to, '') AS old_assigned_to,
            coalesce(t.origin, '') AS old_origin, coalesce(t.first_message_id, '') AS old_first,
            {newer:t.last_metadata:i.meta:i.horizon} AS is_newer,
            EXISTS (SELECT FROM {schema}.onboarding_log l
                    WHERE l.agent_id = i.agent_id AND l.phone_number = i.phone_number OFFSET 0) AS is_logged
        FROM i
        LEFT JOIN LATERAL (
            SELECT c.* FROM {schema}.contacts c
            WHERE c.agent_id = i.agent_id AND c.phone_number = i.phone_number
            ORDER BY c.created_at, c.id LIMIT 1
            FOR NO KEY UPDATE) t ON true
        OFFSET 0) o
),
made AS (
    INSERT INTO {schema}.contacts (id, phone_number, agent_id, chat_id, company_id, gender, status, origin, tags,
        assigned_to, first_message_id, first_message_timestamp, last_metadata, created_at, updated_at)
    SELECT {free_id}, phone_number, agent_id, free_chat, $1, 'MALE', 'ACTIVE',
        CASE WHEN is_campaign THEN origin ELSE 'DirectChat' END,
        CASE WHEN is_campaign THEN tags ELSE 'Onboarded' END,
        CASE WHEN is_campaign THEN assigned_to ELSE '' END,
        message_id, message_timestamp, meta, $2, $2
    FROM old WHERE found IS NULL AND NOT is_logged
    ON CONFLICT DO NOTHING
    RETURNING 1
),
-- Tags and assignment are set by a newer message only; what merely fills a gap is filled by any.
wanted AS (
    SELECT old.*,
        CASE WHEN is_campaign THEN CASE WHEN is_newer THEN {union:old_tags:tags} ELSE old_tags END
            WHEN is_logged OR old_origin <> '' THEN old_tags
            WHEN 'Onboarded' IN (SELECT btrim(tag) FROM unnest(string_to_array(old_tags, ',')) AS tag) THEN old_tags
            ELSE concat_ws(',', nullif(old_tags, ''), 'Onboarded') END AS new_tags,
        CASE WHEN is_campaign AND is_newer AND assigned_to <> '' THEN assigned_to
            ELSE old_assigned_to END AS new_assigned_to,
        CASE WHEN old_origin <> '' THEN old_origin WHEN is_campaign THEN origin
            WHEN is_logged THEN '' ELSE 'DirectChat' END AS new_origin,
        NOT is_logged AND old_first = '' AS is_first
    FROM old WHERE found IS NOT NULL
),
written AS (
    UPDATE {schema}.contacts t SET
        tags = CASE WHEN w.new_tags <> w.old_tags THEN w.new_tags ELSE t.tags END,
        assigned_to = CASE WHEN w.new_assigned_to <> w.old_assigned_to THEN w.new_assigned_to ELSE t.assigned_to END,
        origin = CASE WHEN w.new_origin <> w.old_origin THEN w.new_origin ELSE t.origin END,
        first_message_id = CASE WHEN w.is_first THEN w.message_id ELSE t.first_message_id END,
        first_message_timestamp = CASE WHEN w.is_first THEN w.message_timestamp ELSE t.first_message_timestamp END,
        last_metadata = CASE WHEN w.is_newer THEN w.meta ELSE t.last_metadata END,
        updated_at = $2
    FROM wanted w
    WHERE t.id = w.found AND (w.is_first OR w.new_tags <> w.old_tags OR w.new_assigned_to <> w.old_assigned_to
        OR w.new_origin <> w.old_origin)
),
logged AS (
    INSERT INTO {schema}.onboarding_log (message_id, agent_id, company_id, phone_number, "timestamp", created_at,
        last_metadata)
    SELECT message_id, agent_id, $1, phone_number, message_timestamp, $2, meta FROM old WHERE NOT is_logged
    ON CONFLICT DO NOTHING
)
SELECT -1, 4 WHERE (SELECT count(*) FROM made) < (SELECT count(*) FROM old WHERE found IS NULL AND NOT is_logged)
