    status = CASE WHEN {foreign:t.last_metadata:excluded.last_metadata}
        THEN coalesce(nullif(t.status, ''), excluded.status)
        ELSE coalesce(nullif(excluded.status, ''), t.status) END,
    last_metadata = CASE WHEN {foreign:t.last_metadata:excluded.last_metadata}
        THEN t.last_metadata ELSE excluded.last_metadata END,
    updated_at = excluded.updated_at
WHERE CASE WHEN {foreign:t.last_metadata:excluded.last_metadata}
    THEN coalesce(t.status, '') = '' AND excluded.status <> ''
    ELSE {newer:t.last_metadata:excluded.last_metadata:$3} END
