WITH i AS (
    SELECT agent_id, stream, sequence, timestamptz 'epoch' + published_us * interval '1 microsecond' AS published_at,
        delay_ms, n
    FROM unnest($4::text[], $5::text[], $6::int8[], $7::int8[], $8::int8[]) WITH ORDINALITY
        AS i (agent_id, stream, sequence, published_us, delay_ms, n)
),
made AS (
    INSERT INTO {schema}.daisi_post_scans (agent_id, stream, stream_sequence, published_at, due_at)
    SELECT agent_id, stream, sequence, published_at, $2 + delay_ms * interval '1 millisecond' FROM i
    ON CONFLICT DO NOTHING
    RETURNING agent_id, stream, stream_sequence, published_at
)
SELECT n::int4, 1 FROM i WHERE NOT EXISTS (SELECT FROM made m WHERE m.agent_id = i.agent_id
    AND m.stream = i.stream AND m.stream_sequence = i.sequence AND m.published_at = i.published_at)
