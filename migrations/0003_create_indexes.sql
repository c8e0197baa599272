-- One index for each lookup and key. One that exists under any name counts: the first service left two
-- families of names, and twins are dropped by an operator only.
-- Agents of contacts and of the onboarding log are the first column of the pairs made later (agent_id, phone_number).
-- The one on a message's day is a BRIN index: days come nearly in order within a month's partition, it costs a write
-- next to nothing, and no lookup of a single message, planned while its table was empty, can take it for the unique
-- index and read a whole day.
-- Lock: SHARE on a table whose index is missing, while it is built.
DO $daisi$
DECLARE
    wanted record;
    name text;
BEGIN
    FOR wanted IN
        SELECT * FROM (VALUES
            ('agents', 'idx_agents_agent_id', true, '{agent_id}'::text[]),
            ('chats', 'idx_chats_chat_id', true, '{chat_id}'),
            ('chats', 'idx_chats_agent_id', false, '{agent_id}'),
            ('contacts', 'idx_contacts_chat_id', true, '{chat_id}'),
            ('contacts', 'idx_contacts_assigned_to', false, '{assigned_to}'),
            ('messages', 'idx_messages_message_id_date', true, '{message_id,message_date}'),
            ('messages', 'idx_messages_message_date', false, '{message_date}'),
            ('messages', 'idx_messages_from_phone', false, '{from_phone}'),
            ('messages', 'idx_messages_to_phone', false, '{to_phone}'),
            ('messages', 'idx_messages_chat_id', false, '{chat_id}'),
            ('messages', 'idx_messages_jid', false, '{jid}'),
            ('messages', 'idx_messages_agent_id', false, '{agent_id}'),
            ('onboarding_log', 'idx_onboarding_log_message_id', false, '{message_id}'),
            ('onboarding_log', 'idx_onboarding_log_phone_number', false, '{phone_number}'),
            ('exhausted_events', 'idx_exhausted_events_source_subject', false, '{source_subject}'),
            ('exhausted_events', 'idx_exhausted_events_event_timestamp', false, '{event_timestamp}'),
            ('exhausted_events', 'idx_exhausted_events_resolved', false, '{resolved}'),
            ('exhausted_events', 'idx_exhausted_events_resolved_at', false, '{resolved_at}')
        ) AS w (tab, name, is_unique, cols)
    LOOP
        CONTINUE WHEN EXISTS (
            SELECT FROM pg_index x
            WHERE x.indrelid = to_regclass('{schema}.' || wanted.tab)
              AND (x.indisunique OR NOT wanted.is_unique)
              AND x.indisvalid AND x.indpred IS NULL AND x.indexprs IS NULL
              AND wanted.cols = (
                  SELECT array_agg(a.attname::text ORDER BY k.n)
                  FROM unnest(x.indkey) WITH ORDINALITY AS k (attnum, n)
                  JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = k.attnum
                  WHERE k.n <= x.indnkeyatts));
        name := wanted.name;
        IF to_regclass('{schema}.' || quote_ident(name)) IS NOT NULL THEN
            name := name || '_daisi'; -- The plain name belongs to an index of another shape.
        END IF;
        EXECUTE format('CREATE %s INDEX %I ON {schema}.%I USING %s (%s)',
                       CASE WHEN wanted.is_unique THEN 'UNIQUE' ELSE '' END, name, wanted.tab,
                       CASE WHEN wanted.cols = '{message_date}' THEN 'brin' ELSE 'btree' END,
                       (SELECT string_agg(quote_ident(col), ', ') FROM unnest(wanted.cols) AS col));
    END LOOP;
END
$daisi$;
