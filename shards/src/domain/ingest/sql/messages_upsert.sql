INSERT INTO {schema}.messages AS t (message_id, message_date, from_phone, to_phone, chat_id, jid, agent_id, flow,
    message_type, message_text, message_url, key, message_obj, status, message_timestamp, company_id, is_deleted,
    last_metadata, created_at, updated_at)
SELECT i.message_id, {date}, i.from_phone, i.to_phone, i.chat_id, i.jid, i.agent_id, i.flow,
    i.message_type, i.message_text, i.message_url, i.key, i.message_obj, i.status, i.message_timestamp, $1, false,
    i.meta, $2, $2
FROM {rows:message_id text:message_date date:from_phone text:to_phone text:chat_id text:jid text:agent_id text:
    flow text:message_type text:message_text text:message_url text:key jsonb:message_obj jsonb:status text:
    message_timestamp int8:meta jsonb} AS i
ON CONFLICT {conflict}
