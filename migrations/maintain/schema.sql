-- The schema and our own tables in it: what was applied, and how the company spells itself. The schema may
-- have been made by an administrator for a role that cannot.
DO $daisi$
BEGIN
    IF to_regnamespace('{schema}') IS NULL THEN
        CREATE SCHEMA {schema};
    END IF;
END
$daisi$;
CREATE TABLE IF NOT EXISTS {schema}.daisi_migrations (
    version integer PRIMARY KEY,
    name text NOT NULL,
    digest text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE IF NOT EXISTS {schema}.daisi_tenant (
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    company text NOT NULL
);
