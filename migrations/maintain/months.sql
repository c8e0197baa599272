-- Partitions of messages for the months {first} to {last}, both first days of a month. Rows of a month that
-- wait in the default partition are moved, before the new one is published: change capture sees them leave,
-- and not arrive as new. Lock: SHARE UPDATE EXCLUSIVE on messages, ACCESS EXCLUSIVE on its default.
DO $daisi$
DECLARE
    month date;
    next date;
    name text;
    cols text;
BEGIN
    FOR month IN SELECT generate_series({first}, {last}, interval '1 month')::date LOOP
        name := to_char(month, '"messages_y"YYYY"m"MM');
        CONTINUE WHEN to_regclass('{schema}.' || name) IS NOT NULL;
        next := (month + interval '1 month')::date;
        EXECUTE format('CREATE TABLE {schema}.%I (LIKE {schema}.messages INCLUDING DEFAULTS)', name);
        LOCK TABLE {schema}.messages_default IN ACCESS EXCLUSIVE MODE;
        IF EXISTS (SELECT FROM {schema}.messages_default
                   WHERE message_date >= month AND message_date < next) THEN
            SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) INTO cols
            FROM pg_attribute
            WHERE attrelid = '{schema}.messages'::regclass AND attnum > 0 AND NOT attisdropped;
            EXECUTE format(
                'WITH moved AS (DELETE FROM {schema}.messages_default '
                'WHERE message_date >= %1$L AND message_date < %2$L RETURNING %3$s) '
                'INSERT INTO {schema}.%4$I (%3$s) SELECT %3$s FROM moved', month, next, cols, name);
        END IF;
        EXECUTE format(
            'ALTER TABLE {schema}.messages ATTACH PARTITION {schema}.%I FOR VALUES FROM (%L) TO (%L)',
            name, month, next);
    END LOOP;
END
$daisi$;
