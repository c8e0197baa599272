WITH due AS MATERIALIZED (
    SELECT s.ctid AS place, s.agent_id, s.after_id FROM {schema}.daisi_post_scans s
    WHERE s.done_at IS NULL AND s.due_at <= $2
    ORDER BY s.due_at LIMIT 1
    FOR UPDATE SKIP LOCKED
),
page AS MATERIALIZED (
    SELECT c.id, c.agent_id, translate(c.phone_number, '+ ()', '') AS phone_number,
        length(translate(c.phone_number, '- ', '')) AS digits
    FROM {schema}.contacts c JOIN due ON due.agent_id = c.agent_id
    WHERE coalesce(c.origin, '') = '' AND c.id > due.after_id
    ORDER BY c.id LIMIT 500
),
first AS MATERIALIZED (
    SELECT DISTINCT ON (page.id) page.id, page.agent_id, page.phone_number, m.message_id, m.message_timestamp
    FROM page
    JOIN {schema}.messages m ON m.agent_id = page.agent_id AND m.flow = 'IN'
        AND translate(m.from_phone, '+ ()', '') = page.phone_number
    WHERE page.digits <= 17 AND NOT EXISTS (
        SELECT FROM {schema}.onboarding_log l
        WHERE l.agent_id = page.agent_id AND l.phone_number = page.phone_number)
    ORDER BY page.id, m.message_timestamp, m.id
),
written AS (
    UPDATE {schema}.contacts t SET origin = 'DirectChat', tags = 'Onboarded', first_message_id = first.message_id,
        first_message_timestamp = first.message_timestamp, updated_at = $2
    FROM first WHERE t.id = first.id
),
logged AS (
    INSERT INTO {schema}.onboarding_log (message_id, agent_id, company_id, phone_number, "timestamp", created_at,
        last_metadata)
    SELECT message_id, agent_id, $1, phone_number, message_timestamp, $2,
        jsonb_build_object('source', 'post_scan_sync',
            'synced_at', to_char($2 AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))
    FROM first
    ON CONFLICT DO NOTHING
),
moved AS (
    UPDATE {schema}.daisi_post_scans s SET
        after_id = coalesce((SELECT id FROM page ORDER BY id DESC LIMIT 1), s.after_id),
        done_at = CASE WHEN (SELECT count(*) FROM page) < 500 THEN $2 END
    FROM due WHERE s.ctid = due.place
)
SELECT (SELECT count(*) FROM page)::int4, (SELECT count(*) FROM due)::int4
