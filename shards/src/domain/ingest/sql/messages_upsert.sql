INSERT INTO {schema}.messages AS t (message_id, message_date, from_phone, to_phone, chat_id, jid, agent_id, flow,
    message_type, message_text, message_url, key, message_obj, status, message_timestamp, company_id, is_deleted,
    last_metadata, created_at, updated_at)
SELECT i.message_id, {date}, i.from_phone, i.to_phone, i.chat_id, i.jid, i.agent_id, i.flow,
    i.message_type, i.message_text, i.message_url, i.key, i.message_obj, i.status, i.message_timestamp, $1, false,
    i.meta, $2, $2
FROM unnest($4::text[], $5::date[], $6::text[], $7::text[], $8::text[], $9::text[], $10::text[], $11::text[],
    $12::text[], $13::text[], $14::text[], $15::jsonb[], $16::jsonb[], $17::text[], $18::int8[], $19::jsonb[])
    AS i (message_id, message_date, from_phone, to_phone, chat_id, jid, agent_id, flow, message_type, message_text,
    message_url, key, message_obj, status, message_timestamp, meta)
ON CONFLICT (message_id, message_date) DO UPDATE SET {update}
