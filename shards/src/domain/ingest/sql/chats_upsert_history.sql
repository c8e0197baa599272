    push_name = CASE WHEN {foreign:t.last_metadata:excluded.last_metadata}
        THEN coalesce(nullif(t.push_name, ''), excluded.push_name) ELSE excluded.push_name END,
    group_name = CASE WHEN {foreign:t.last_metadata:excluded.last_metadata}
        THEN coalesce(nullif(t.group_name, ''), excluded.group_name) ELSE excluded.group_name END,
    unread_count = CASE WHEN {foreign:t.last_metadata:excluded.last_metadata}
        THEN coalesce(t.unread_count, excluded.unread_count) ELSE excluded.unread_count END,
    last_message = CASE WHEN {foreign:t.last_metadata:excluded.last_metadata}
        THEN coalesce(t.last_message, excluded.last_message) ELSE excluded.last_message END,
    conversation_timestamp = CASE WHEN {foreign:t.last_metadata:excluded.last_metadata}
        THEN coalesce(nullif(t.conversation_timestamp, 0), excluded.conversation_timestamp)
        ELSE excluded.conversation_timestamp END,
    last_metadata = CASE WHEN {foreign:t.last_metadata:excluded.last_metadata}
        THEN t.last_metadata ELSE excluded.last_metadata END,
    updated_at = excluded.updated_at
WHERE CASE WHEN {foreign:t.last_metadata:excluded.last_metadata}
    THEN (coalesce(t.push_name, '') = '' AND excluded.push_name <> '')
        OR (coalesce(t.group_name, '') = '' AND excluded.group_name <> '')
        OR t.unread_count IS NULL
        OR (t.last_message IS NULL AND excluded.last_message IS NOT NULL)
        OR (coalesce(t.conversation_timestamp, 0) = 0 AND excluded.conversation_timestamp <> 0)
    ELSE {newer:t.last_metadata:excluded.last_metadata:$3} END
