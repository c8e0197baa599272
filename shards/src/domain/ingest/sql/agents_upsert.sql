INSERT INTO {schema}.agents AS t (agent_id, qr_code, status, agent_name, host_name, version, phone_number, company_id,
    last_metadata, created_at, updated_at)
SELECT i.agent_id, i.qr_code, i.status, i.agent_name, i.host_name, i.version, i.phone_number, $1, i.meta, $2, $2
FROM unnest($4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::text[], $11::jsonb[])
    AS i (agent_id, qr_code, status, agent_name, host_name, version, phone_number, meta)
ON CONFLICT (agent_id) DO UPDATE SET
    qr_code = coalesce(nullif(excluded.qr_code, ''), t.qr_code),
    status = coalesce(nullif(excluded.status, ''), t.status),
    agent_name = coalesce(nullif(excluded.agent_name, ''), t.agent_name),
    host_name = coalesce(nullif(excluded.host_name, ''), t.host_name),
    version = coalesce(nullif(excluded.version, ''), t.version),
    phone_number = coalesce(nullif(excluded.phone_number, ''), t.phone_number),
    last_metadata = excluded.last_metadata,
    updated_at = excluded.updated_at
WHERE {newer:t.last_metadata:excluded.last_metadata:$3}
