-- A dead letter is given up once, however often its worker dies between the insert and its ack: the row names
-- the letter in `dlq_payload`, and this index refuses a second row of that name. Rows of the first service name none.
-- Lock: SHARE on exhausted_events while the index is built; few rows.
CREATE UNIQUE INDEX IF NOT EXISTS uq_exhausted_events_letter
    ON {schema}.exhausted_events ((dlq_payload ->> 'daisi_letter'))
    WHERE dlq_payload ->> 'daisi_letter' IS NOT NULL;
