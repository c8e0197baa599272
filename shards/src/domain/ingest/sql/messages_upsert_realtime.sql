    status = coalesce(nullif(excluded.status, ''), t.status),
    message_text = coalesce(nullif(excluded.message_text, ''), t.message_text),
    message_url = coalesce(nullif(excluded.message_url, ''), t.message_url),
    message_obj = coalesce(excluded.message_obj, t.message_obj),
    message_type = coalesce(nullif(excluded.message_type, ''), t.message_type),
    last_metadata = excluded.last_metadata,
    updated_at = excluded.updated_at
WHERE {newer:t.last_metadata:excluded.last_metadata:$3}
