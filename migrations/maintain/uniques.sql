-- Unique (agent_id, phone_number) where the rows allow it; else a plain index, and writers look rows up.
-- Tried again by each `daisi migrate`, because rows can be put right.
DO $daisi$
DECLARE
    tab text;
BEGIN
    FOREACH tab IN ARRAY ARRAY['contacts', 'onboarding_log'] LOOP
        CONTINUE WHEN to_regclass(format('{schema}.uq_%s_agent_phone', tab)) IS NOT NULL;
        BEGIN
            EXECUTE format('CREATE UNIQUE INDEX uq_%1$s_agent_phone ON {schema}.%1$s '
                           '(agent_id, phone_number)', tab);
        EXCEPTION WHEN unique_violation THEN
            RAISE WARNING '{schema}.% has rows with equal agent_id and phone_number', tab;
            EXECUTE format('CREATE INDEX IF NOT EXISTS idx_%1$s_agent_phone ON {schema}.%1$s '
                           '(agent_id, phone_number)', tab);
        END;
    END LOOP;
END
$daisi$;
