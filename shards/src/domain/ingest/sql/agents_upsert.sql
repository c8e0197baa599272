INSERT INTO {schema}.agents AS t (agent_id, qr_code, status, agent_name, host_name, version, phone_number, company_id,
    last_metadata, created_at, updated_at)
SELECT i.agent_id, i.qr_code, i.status, i.agent_name, i.host_name, i.version, i.phone_number, $1, i.meta, $2, $2
FROM {rows:agent_id text:qr_code text:status text:agent_name text:host_name text:version text:phone_number text:
    meta jsonb} AS i
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
