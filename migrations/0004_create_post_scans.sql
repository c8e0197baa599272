-- Contacts to be looked through some time after an agent's history was scanned (contract, section 5.9).
-- A row a trigger; it stays after it was done, so that a redelivered trigger does nothing.
-- Lock: none. Duration: milliseconds.
CREATE TABLE IF NOT EXISTS {schema}.daisi_post_scans (
    agent_id text NOT NULL,
    stream text NOT NULL,
    stream_sequence bigint NOT NULL,
    published_at timestamptz NOT NULL,
    due_at timestamptz NOT NULL,
    done_at timestamptz,
    after_id text NOT NULL DEFAULT '',
    PRIMARY KEY (agent_id, stream, stream_sequence, published_at)
);
CREATE INDEX IF NOT EXISTS idx_daisi_post_scans_due ON {schema}.daisi_post_scans (due_at)
    WHERE done_at IS NULL;
