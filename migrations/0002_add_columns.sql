-- Columns that tables of earlier releases of the first service lack. Nothing is dropped or retyped.
-- Lock: ACCESS EXCLUSIVE on a table that lacks one, for a change of the catalogue; no row is rewritten.
DO $daisi$
DECLARE
    lacking record;
BEGIN
    FOR lacking IN
        SELECT tab, col, kind
        FROM (VALUES
            ('agents', 'agent_id', 'text'), ('agents', 'qr_code', 'text'),
            ('agents', 'status', 'text'), ('agents', 'agent_name', 'text'),
            ('agents', 'phone_number', 'text'), ('agents', 'host_name', 'text'),
            ('agents', 'version', 'text'), ('agents', 'company_id', 'text'),
            ('agents', 'created_at', 'timestamptz'), ('agents', 'updated_at', 'timestamptz'),
            ('agents', 'last_metadata', 'jsonb'),
            ('chats', 'chat_id', 'text'), ('chats', 'jid', 'text'), ('chats', 'push_name', 'text'),
            ('chats', 'is_group', 'boolean'), ('chats', 'group_name', 'text'),
            ('chats', 'unread_count', 'integer'), ('chats', 'last_message', 'jsonb'),
            ('chats', 'conversation_timestamp', 'bigint'), ('chats', 'not_spam', 'boolean'),
            ('chats', 'agent_id', 'text'), ('chats', 'company_id', 'text'),
            ('chats', 'phone_number', 'text'), ('chats', 'last_metadata', 'jsonb'),
            ('chats', 'created_at', 'timestamptz'), ('chats', 'updated_at', 'timestamptz'),
            ('contacts', 'phone_number', 'text'), ('contacts', 'agent_id', 'text'),
            ('contacts', 'chat_id', 'text'), ('contacts', 'type', 'text'),
            ('contacts', 'custom_name', 'text'), ('contacts', 'notes', 'text'),
            ('contacts', 'tags', 'text'), ('contacts', 'company_id', 'text'),
            ('contacts', 'avatar', 'text'), ('contacts', 'assigned_to', 'text'),
            ('contacts', 'pob', 'text'), ('contacts', 'dob', 'date'),
            ('contacts', 'gender', 'text DEFAULT ''MALE'''), ('contacts', 'origin', 'text'),
            ('contacts', 'push_name', 'text'), ('contacts', 'status', 'text DEFAULT ''ACTIVE'''),
            ('contacts', 'first_message_id', 'text'),
            ('contacts', 'first_message_timestamp', 'bigint'),
            ('contacts', 'created_at', 'timestamptz'), ('contacts', 'updated_at', 'timestamptz'),
            ('contacts', 'last_metadata', 'jsonb'),
            ('messages', 'message_id', 'text'), ('messages', 'from_phone', 'text'),
            ('messages', 'to_phone', 'text'), ('messages', 'chat_id', 'text'),
            ('messages', 'jid', 'text'), ('messages', 'flow', 'text'),
            ('messages', 'message_type', 'text'), ('messages', 'message_text', 'text'),
            ('messages', 'message_url', 'text'), ('messages', 'agent_id', 'text'),
            ('messages', 'company_id', 'text'), ('messages', 'message_obj', 'jsonb'),
            ('messages', 'edited_message_obj', 'jsonb'), ('messages', 'key', 'jsonb'),
            ('messages', 'status', 'text'), ('messages', 'is_deleted', 'boolean DEFAULT false'),
            ('messages', 'message_timestamp', 'bigint'), ('messages', 'created_at', 'timestamptz'),
            ('messages', 'updated_at', 'timestamptz'), ('messages', 'last_metadata', 'jsonb'),
            ('onboarding_log', 'message_id', 'text'), ('onboarding_log', 'agent_id', 'text'),
            ('onboarding_log', 'company_id', 'text'), ('onboarding_log', 'phone_number', 'text'),
            ('onboarding_log', 'timestamp', 'bigint'),
            ('onboarding_log', 'created_at', 'timestamptz'),
            ('onboarding_log', 'last_metadata', 'jsonb'),
            ('exhausted_events', 'created_at', 'timestamptz'),
            ('exhausted_events', 'last_error', 'text'),
            ('exhausted_events', 'retry_count', 'bigint'),
            ('exhausted_events', 'event_timestamp', 'timestamptz'),
            ('exhausted_events', 'original_payload', 'jsonb'),
            ('exhausted_events', 'resolved', 'boolean DEFAULT false'),
            ('exhausted_events', 'resolved_at', 'timestamptz'),
            ('exhausted_events', 'notes', 'text')
        ) AS wanted (tab, col, kind)
        WHERE NOT EXISTS (
            SELECT FROM pg_attribute a
            WHERE a.attrelid = to_regclass('{schema}.' || wanted.tab)
              AND a.attname = wanted.col AND NOT a.attisdropped)
    LOOP
        EXECUTE format('ALTER TABLE {schema}.%I ADD COLUMN %I %s',
                       lacking.tab, lacking.col, lacking.kind);
    END LOOP;
END
$daisi$;
