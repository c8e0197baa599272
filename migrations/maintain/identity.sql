-- Whole old rows in the write-ahead log, for change capture.
DO $daisi$
DECLARE
    tab regclass;
BEGIN
    FOR tab IN
        SELECT c.oid FROM pg_class c
        WHERE c.relnamespace = '{schema}'::regnamespace AND c.relreplident <> 'f'
          AND (c.relname IN ('agents', 'chats', 'contacts', 'messages')
               OR c.oid IN (SELECT inhrelid FROM pg_inherits
                            WHERE inhparent = '{schema}.messages'::regclass))
          AND c.relkind IN ('r', 'p')
    LOOP
        EXECUTE format('ALTER TABLE %s REPLICA IDENTITY FULL', tab);
    END LOOP;
END
$daisi$;
