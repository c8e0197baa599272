INSERT INTO {schema}.chats AS t (chat_id, jid, agent_id, phone_number, push_name, is_group, group_name, last_message,
    conversation_timestamp, unread_count, not_spam, company_id, last_metadata, created_at, updated_at)
SELECT i.chat_id, i.jid, i.agent_id, i.phone_number, i.push_name, i.is_group, i.group_name, i.last_message,
    i.conversation_timestamp, i.unread_count, i.not_spam, $1, i.meta, $2, $2
FROM unnest($4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::bool[], $10::text[], $11::jsonb[],
    $12::int8[], $13::int4[], $14::bool[], $15::jsonb[])
    AS i (chat_id, jid, agent_id, phone_number, push_name, is_group, group_name, last_message,
    conversation_timestamp, unread_count, not_spam, meta)
ON CONFLICT (chat_id) DO UPDATE SET {update}
