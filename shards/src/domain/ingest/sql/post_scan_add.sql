INSERT INTO {schema}.daisi_post_scans (agent_id, stream, stream_sequence, published_at, due_at)
SELECT i.agent_id, i.stream, i.sequence, timestamptz 'epoch' + i.published_us * interval '1 microsecond',
    $2 + i.delay_ms * interval '1 millisecond'
FROM unnest($4::text[], $5::text[], $6::int8[], $7::int8[], $8::int8[])
    AS i (agent_id, stream, sequence, published_us, delay_ms)
ON CONFLICT DO NOTHING
