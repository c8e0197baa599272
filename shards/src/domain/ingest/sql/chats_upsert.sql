INSERT INTO {schema}.chats AS t (chat_id, jid, agent_id, phone_number, push_name, is_group, group_name, last_message,
    conversation_timestamp, unread_count, not_spam, company_id, last_metadata, created_at, updated_at)
SELECT i.chat_id, i.jid, i.agent_id, i.phone_number, i.push_name, i.is_group, i.group_name, i.last_message,
    i.conversation_timestamp, i.unread_count, i.not_spam, $1, i.meta, $2, $2
FROM {rows:chat_id text:jid text:agent_id text:phone_number text:push_name text:is_group bool:group_name text:
    last_message jsonb:conversation_timestamp int8:unread_count int4:not_spam bool:meta jsonb} AS i
ON CONFLICT (chat_id) DO UPDATE SET {update}
