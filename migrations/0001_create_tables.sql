-- The six tables of a company. A table that the first service made is taken as it is.
-- Lock: none on tables that exist. Duration: milliseconds.
CREATE TABLE IF NOT EXISTS {schema}.agents (
    id bigserial PRIMARY KEY,
    agent_id text,
    qr_code text,
    status text,
    agent_name text,
    phone_number text,
    host_name text,
    version text,
    company_id text,
    created_at timestamptz,
    updated_at timestamptz,
    last_metadata jsonb
);
CREATE TABLE IF NOT EXISTS {schema}.chats (
    id bigserial PRIMARY KEY,
    chat_id text,
    jid text,
    push_name text,
    is_group boolean,
    group_name text,
    unread_count integer,
    last_message jsonb,
    conversation_timestamp bigint,
    not_spam boolean,
    agent_id text,
    company_id text,
    phone_number text,
    last_metadata jsonb,
    created_at timestamptz,
    updated_at timestamptz
);
CREATE TABLE IF NOT EXISTS {schema}.contacts (
    id text PRIMARY KEY,
    phone_number text,
    agent_id text,
    chat_id text,
    type text,
    custom_name text,
    notes text,
    tags text,
    company_id text,
    avatar text,
    assigned_to text,
    pob text,
    dob date,
    gender text DEFAULT 'MALE',
    origin text,
    push_name text,
    status text DEFAULT 'ACTIVE',
    first_message_id text,
    first_message_timestamp bigint,
    created_at timestamptz,
    updated_at timestamptz,
    last_metadata jsonb
);
CREATE TABLE IF NOT EXISTS {schema}.messages (
    id bigserial,
    message_id text,
    from_phone text,
    to_phone text,
    chat_id text,
    jid text,
    flow text,
    message_type text,
    message_text text,
    message_url text,
    agent_id text,
    company_id text,
    message_obj jsonb,
    edited_message_obj jsonb,
    key jsonb,
    status text,
    is_deleted boolean DEFAULT false,
    message_timestamp bigint,
    message_date date NOT NULL,
    created_at timestamptz,
    updated_at timestamptz,
    last_metadata jsonb,
    PRIMARY KEY (id, message_date)
) PARTITION BY RANGE (message_date);
CREATE TABLE IF NOT EXISTS {schema}.messages_default PARTITION OF {schema}.messages DEFAULT;
CREATE TABLE IF NOT EXISTS {schema}.onboarding_log (
    id bigserial PRIMARY KEY,
    message_id text,
    agent_id text,
    company_id text,
    phone_number text,
    "timestamp" bigint,
    created_at timestamptz,
    last_metadata jsonb
);
CREATE TABLE IF NOT EXISTS {schema}.exhausted_events (
    id bigserial PRIMARY KEY,
    created_at timestamptz,
    company_id text NOT NULL,
    source_subject text NOT NULL,
    last_error text,
    retry_count bigint,
    event_timestamp timestamptz,
    dlq_payload jsonb NOT NULL,
    original_payload jsonb,
    resolved boolean DEFAULT false,
    resolved_at timestamptz,
    notes text
);
