-- The partition {name} of messages, for the days from {first} to before {next}. Rows that wait for it in the default
-- partition are moved, before it is published: change capture sees them leave, and not arrive as new.
-- Lock: ACCESS EXCLUSIVE on the default partition, SHARE UPDATE EXCLUSIVE on messages; milliseconds, if there are no
-- rows to be moved.
DO $daisi$
DECLARE
    cols text;
BEGIN
    -- Before the look: another replica may be making it.
    LOCK TABLE {schema}.messages_default IN ACCESS EXCLUSIVE MODE;
    IF to_regclass('{schema}.{name}') IS NOT NULL THEN
        RETURN;
    END IF;
    CREATE TABLE {schema}.{name} (LIKE {schema}.messages INCLUDING DEFAULTS);
    ALTER TABLE {schema}.{name} REPLICA IDENTITY FULL;
    IF EXISTS (SELECT FROM {schema}.messages_default
               WHERE message_date >= '{first}' AND message_date < '{next}') THEN
        SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) INTO cols
        FROM pg_attribute
        WHERE attrelid = '{schema}.messages'::regclass AND attnum > 0 AND NOT attisdropped;
        EXECUTE format(
            'WITH moved AS (DELETE FROM {schema}.messages_default '
            'WHERE message_date >= ''{first}'' AND message_date < ''{next}'' RETURNING %1$s) '
            'INSERT INTO {schema}.{name} (%1$s) SELECT %1$s FROM moved', cols);
    END IF;
    ALTER TABLE {schema}.messages ATTACH PARTITION {schema}.{name} FOR VALUES FROM ('{first}') TO ('{next}');
END
$daisi$;
