-- The company's tables join the publication; with the parent in it, partitions are in it by themselves. A
-- role that may not do this is no failure: whoever runs change capture can. Apart from everything else,
-- because companies wait for each other at the publication's lock.
DO $daisi$
DECLARE
    pub record;
    missing text;
BEGIN
    SELECT oid, pubowner, puballtables INTO pub FROM pg_publication WHERE pubname = '{publication}';
    IF NOT FOUND THEN
        IF NOT has_database_privilege(current_database(), 'CREATE') THEN
            RAISE NOTICE 'publication {publication} is missing and % may not create it', current_user;
            RETURN;
        END IF;
        BEGIN
            CREATE PUBLICATION "{publication}";
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL; -- Another company was first.
        END;
        SELECT oid, pubowner, puballtables INTO pub FROM pg_publication
        WHERE pubname = '{publication}';
    ELSIF pub.puballtables THEN
        RETURN;
    ELSIF NOT pg_has_role(pub.pubowner, 'USAGE') THEN
        RAISE NOTICE 'publication {publication} belongs to another role';
        RETURN;
    END IF;
    SELECT string_agg('{schema}.' || tab, ', ') INTO missing
    FROM unnest(ARRAY['agents', 'chats', 'contacts', 'messages']) AS tab
    WHERE NOT EXISTS (SELECT FROM pg_publication_rel r
                      WHERE r.prpubid = pub.oid AND r.prrelid = to_regclass('{schema}.' || tab));
    IF missing IS NOT NULL THEN
        EXECUTE 'ALTER PUBLICATION "{publication}" ADD TABLE ' || missing;
    END IF;
EXCEPTION WHEN insufficient_privilege OR duplicate_object THEN
    RAISE NOTICE 'publication {publication} is as it was: %', SQLERRM;
END
$daisi$;
