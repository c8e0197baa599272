-- The spelling that the rows of the first service bear wins over the one we met first.
INSERT INTO {schema}.daisi_tenant (company)
SELECT coalesce(
    (SELECT company_id FROM {schema}.agents WHERE lower(company_id) = lower('{company}') LIMIT 1),
    (SELECT company_id FROM {schema}.chats WHERE lower(company_id) = lower('{company}') LIMIT 1),
    (SELECT company_id FROM {schema}.contacts WHERE lower(company_id) = lower('{company}') LIMIT 1),
    (SELECT company_id FROM {schema}.messages WHERE lower(company_id) = lower('{company}') LIMIT 1),
    '{company}')
ON CONFLICT DO NOTHING;
