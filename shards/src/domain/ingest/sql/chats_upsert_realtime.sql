    push_name = excluded.push_name,
    group_name = excluded.group_name,
    unread_count = excluded.unread_count,
    last_message = excluded.last_message,
    conversation_timestamp = excluded.conversation_timestamp,
    last_metadata = excluded.last_metadata,
    updated_at = excluded.updated_at
WHERE {newer:t.last_metadata:excluded.last_metadata:$3}
