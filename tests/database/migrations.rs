//! Schemas: from nothing and from what the first service left; once, whoever races; refusals by name.

use std::time::Instant;

use shards::edge::pg::migrate::{self, MIGRATIONS, MigrateError, Options};
use shards::edge::pg::months::{self, Month};

use crate::world::{ask, connect, run};

fn published() -> Options {
    Options { publication: Some("daisi_pub".to_owned()) }
}

#[test]
fn a_new_company_gets_every_table_month_and_index_once() {
    run(async {
        let client = connect().await;
        let opened = migrate::open(&client, "Fresh-1", &published()).await.unwrap();
        assert_eq!(opened.applied.len(), MIGRATIONS.len());
        assert!(migrate::open(&client, "Fresh-1", &published()).await.unwrap().applied.is_empty());
        let partitions = "SELECT count(*) FROM pg_inherits WHERE inhparent = '\"daisi_fresh-1\".messages'::regclass";
        assert_eq!(ask(&client, partitions).await, "1", "first sight makes no month");
        migrate::migrate(&client, "Fresh-1", &published()).await.unwrap();
        let tables = "SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class \
            WHERE relnamespace = '\"daisi_fresh-1\"'::regnamespace AND relkind IN ('r','p') AND NOT relispartition";
        assert_eq!(
            ask(&client, tables).await,
            "agents chats contacts daisi_migrations daisi_post_scans daisi_tenant exhausted_events messages onboarding_log"
        );
        // Last, this and next month, last January, three months ahead, and the default.
        let months = "SELECT bool_and(to_regclass('\"daisi_fresh-1\".' || to_char(day, '\"messages_y\"YYYY\"m\"MM')) IS NOT NULL) \
            FROM unnest(ARRAY[now() - interval '1 month', now(), now() + interval '1 month', now() + interval '3 month', \
            date_trunc('year', now()) - interval '1 year']) AS day";
        assert_eq!(ask(&client, months).await, "t");
        assert_eq!(
            ask(&client, "SELECT to_regclass('\"daisi_fresh-1\".messages_default') IS NOT NULL")
                .await,
            "t"
        );
        // Primary key, the unique pair, date, and five columns.
        let indexes = "SELECT count(*) FROM pg_indexes WHERE schemaname = 'daisi_fresh-1' AND tablename = 'messages'";
        assert_eq!(ask(&client, indexes).await, "8");
        let identity = "SELECT count(*) FROM pg_class WHERE relnamespace = '\"daisi_fresh-1\"'::regnamespace \
            AND relkind IN ('r','p') AND relreplident = 'f' AND relname LIKE 'messages%'";
        let partitions = "SELECT count(*) FROM pg_publication_tables WHERE schemaname = 'daisi_fresh-1' \
            AND pubname = 'daisi_pub' AND tablename LIKE 'messages_%'";
        let both = (ask(&client, identity).await, ask(&client, partitions).await);
        let (identity, partitions): (u32, u32) = (both.0.parse().unwrap(), both.1.parse().unwrap());
        assert!(partitions >= 25 && identity == partitions + 1, "{identity} {partitions}");
        let published = "SELECT string_agg(tablename, ' ' ORDER BY tablename) FROM pg_publication_tables \
            WHERE schemaname = 'daisi_fresh-1' AND tablename NOT LIKE 'messages%'";
        assert_eq!(ask(&client, published).await, "agents chats contacts");
    });
}

/// What the first service left (contract, 4.2 to 4.4): no unique pairs, months of two years only in part, twin
/// indexes, rows; and one column missing, as in its earlier releases.
fn legacy(schema: &str) -> String {
    let months = "CREATE TABLE {s}.messages_y2025m01 PARTITION OF {s}.messages FOR VALUES FROM ('2025-01-01') TO ('2025-02-01');";
    format!(
        r#"CREATE SCHEMA {{s}};
        CREATE TABLE {{s}}.agents (id bigserial PRIMARY KEY, agent_id text, qr_code text, status text, agent_name text,
            host_name text, version text, company_id text, created_at timestamptz, updated_at timestamptz, last_metadata jsonb);
        CREATE UNIQUE INDEX "idx_""{{s}}""_agents_agent_id" ON {{s}}.agents (agent_id);
        CREATE TABLE {{s}}.chats (id bigserial PRIMARY KEY, chat_id text, jid text, push_name text, is_group boolean,
            group_name text, unread_count integer, last_message jsonb, conversation_timestamp bigint, not_spam boolean,
            agent_id text, company_id text, phone_number text, last_metadata jsonb, created_at timestamptz, updated_at timestamptz);
        CREATE UNIQUE INDEX "idx_chats_chat_id" ON {{s}}.chats (chat_id);
        CREATE UNIQUE INDEX "idx_""{{s}}""_chats_chat_id" ON {{s}}.chats (chat_id);
        CREATE TABLE {{s}}.contacts (id text PRIMARY KEY, phone_number text, agent_id text, chat_id text, type text,
            custom_name text, notes text, tags text, company_id text, avatar text, assigned_to text, pob text, dob date,
            gender text DEFAULT 'MALE', origin text, push_name text, status text DEFAULT 'ACTIVE', first_message_id text,
            first_message_timestamp bigint, created_at timestamptz, updated_at timestamptz, last_metadata jsonb);
        CREATE INDEX idx_contacts_chat_id ON {{s}}.contacts (chat_id, agent_id);
        CREATE TABLE {{s}}.messages (id bigserial, message_id text, from_phone text, to_phone text, chat_id text, jid text,
            flow text, message_type text, message_text text, message_url text, agent_id text, company_id text, message_obj jsonb,
            edited_message_obj jsonb, key jsonb, status text, is_deleted boolean DEFAULT false, message_timestamp bigint,
            message_date date NOT NULL, created_at timestamptz, updated_at timestamptz, last_metadata jsonb,
            PRIMARY KEY (id, message_date)) PARTITION BY RANGE (message_date);
        CREATE UNIQUE INDEX idx_messages_unique ON {{s}}.messages (message_id, message_date);
        CREATE INDEX idx_messages_chat_id ON {{s}}.messages (chat_id);
        CREATE INDEX "idx_""{{s}}""_messages_chat_id" ON {{s}}.messages (chat_id);
        CREATE TABLE {{s}}.messages_default PARTITION OF {{s}}.messages DEFAULT;
        {months}
        CREATE TABLE {{s}}.onboarding_log (id bigserial PRIMARY KEY, message_id text, agent_id text, company_id text,
            phone_number text, "timestamp" bigint, created_at timestamptz, last_metadata jsonb);
        CREATE TABLE {{s}}.exhausted_events (id bigserial PRIMARY KEY, created_at timestamptz, company_id text NOT NULL,
            source_subject text NOT NULL, last_error text, retry_count bigint, event_timestamp timestamptz,
            dlq_payload jsonb NOT NULL, original_payload jsonb, resolved boolean DEFAULT false, resolved_at timestamptz, notes text);
        INSERT INTO {{s}}.chats (chat_id, company_id, unread_count) VALUES ('c1', 'LegacyCo', 3);
        INSERT INTO {{s}}.contacts (id, phone_number, agent_id, chat_id) VALUES ('', '1', 'a', ''), ('u', '1', 'a', 'c1');
        INSERT INTO {{s}}.onboarding_log (agent_id, phone_number) VALUES ('a', '1');
        INSERT INTO {{s}}.messages (message_id, message_date, message_text)
            VALUES ('old', '2025-01-05', 'x'), ('lost', date_trunc('month', now()), 'y'), ('older', '2001-02-03', 'z');"#
    )
    .replace("{s}", schema)
}

#[test]
fn a_schema_of_the_first_service_is_led_to_the_same_shape_and_keeps_its_rows() {
    run(async {
        let client = connect().await;
        client.batch_execute(&legacy("daisi_legacyco")).await.unwrap();
        let chats = "SELECT relfilenode FROM pg_class WHERE oid = 'daisi_legacyco.chats'::regclass";
        let before = ask(&client, chats).await;
        // Its rows spell the company; another spelling is refused, whoever comes first.
        let error = migrate::open(&client, "legacyco", &published()).await.unwrap_err();
        assert!(
            matches!(&error, MigrateError::OtherSpelling { stored, .. } if stored == "LegacyCo"),
            "{error}"
        );
        migrate::open(&client, "LegacyCo", &published()).await.unwrap();
        assert_eq!(ask(&client, chats).await, before, "chats was rewritten");
        assert_eq!(
            ask(&client, "SELECT chat_id, unread_count FROM daisi_legacyco.chats").await,
            "c1|3"
        );
        months::make_wanted(&client, "LegacyCo").await.unwrap();
        let placed = "SELECT message_id, tableoid::regclass::text = 'daisi_legacyco.' || to_char(message_date, '\"messages_y\"YYYY\"m\"MM') \
            FROM daisi_legacyco.messages ORDER BY 1";
        assert_eq!(ask(&client, placed).await, "lost|t\nold|t\nolder|f");
        // The column that was missing, the twins that stay, the keys that the rows allow, and the one they do not.
        assert_eq!(ask(&client, "SELECT phone_number FROM daisi_legacyco.agents").await, "");
        let indexes = |table: &str| {
            format!(
                "SELECT count(*) FROM pg_indexes WHERE schemaname = 'daisi_legacyco' AND tablename = '{table}'"
            )
        };
        assert_eq!(ask(&client, &indexes("chats")).await, "4");
        assert_eq!(ask(&client, &indexes("messages")).await, "9");
        assert_eq!(ask(&client, &indexes("contacts")).await, "5");
        let pairs = "SELECT relname FROM pg_class WHERE relnamespace = 'daisi_legacyco'::regnamespace \
            AND relname LIKE '%agent_phone' ORDER BY 1";
        assert_eq!(
            ask(&client, pairs).await,
            "idx_contacts_agent_phone\nuq_onboarding_log_agent_phone"
        );
        // Put right by an operator, the pair becomes unique.
        client.batch_execute("DELETE FROM daisi_legacyco.contacts WHERE id = ''").await.unwrap();
        migrate::migrate(&client, "LegacyCo", &published()).await.unwrap();
        assert!(ask(&client, pairs).await.contains("uq_contacts_agent_phone"));
    });
}

#[test]
fn a_month_is_made_on_demand_and_its_rows_move() {
    run(async {
        let client = connect().await;
        migrate::open(&client, "months", &Options::default()).await.unwrap();
        let rows = "INSERT INTO daisi_months.messages (message_id, message_date) SELECT n::text, date '2031-05-01' + n FROM generate_series(0, 61) n";
        client.batch_execute(rows).await.unwrap();
        let count = "SELECT count(*) FROM ONLY daisi_months.messages_default";
        assert_eq!(ask(&client, count).await, "62");
        for _twice in 0..2 {
            months::make(&client, "months", Month::new(2031, 5).unwrap()).await.unwrap();
        }
        assert_eq!(ask(&client, count).await, "31");
        assert_eq!(
            ask(&client, "SELECT count(*) FROM ONLY daisi_months.messages_y2031m05").await,
            "31"
        );
        assert_eq!(ask(&client, "SELECT relreplident FROM pg_class WHERE oid = 'daisi_months.messages_y2031m05'::regclass").await, "f");
        months::make_wanted(&client, "months").await.unwrap();
    });
}

#[test]
fn racing_replicas_migrate_once() {
    run(async {
        let clients = [connect().await, connect().await, connect().await, connect().await];
        let options = published();
        for race in 0..8 {
            let company = format!("Race{race}");
            // The losers have looked before, as every writer does: what they saw then is no longer so.
            let open = |client| migrate::open(client, &company, &options);
            let [a, b, c, d] = clients.each_ref().map(open);
            let (a, b, c, d) = tokio::join!(a, b, c, d);
            let applied = [a, b, c, d].map(|opened| opened.unwrap().applied.len());
            assert_eq!(applied.iter().sum::<usize>(), MIGRATIONS.len());
        }
    });
}

#[test]
fn bad_names_second_spellings_and_changed_migrations_are_refused() {
    run(async {
        let client = connect().await;
        for bad in ["", "a.b", "a\"; DROP SCHEMA public; --", "tenant with spaces", &"x".repeat(49)]
        {
            let error = migrate::open(&client, bad, &Options::default()).await.unwrap_err();
            assert!(matches!(error, MigrateError::BadCompany(_)) && error.is_final(), "{error}");
        }
        migrate::open(&client, "Twice", &Options::default()).await.unwrap();
        let error = migrate::open(&client, "TWICE", &Options::default()).await.unwrap_err();
        assert!(error.to_string().contains("\"Twice\"") && error.is_final(), "{error}");
        client
            .batch_execute("UPDATE daisi_twice.daisi_migrations SET digest = 'x' WHERE version = 3")
            .await
            .unwrap();
        let error = migrate::open(&client, "Twice", &Options::default()).await.unwrap_err();
        assert!(
            error.to_string().contains("migration 3 (create_indexes) of schema daisi_twice"),
            "{error}"
        );
        let bad = Options { publication: Some("a b".to_owned()) };
        assert!(migrate::migrate(&client, "Other", &bad).await.is_err());
        assert!(migrate::companies(&client).await.unwrap().contains(&"Twice".to_owned()));
    });
}

#[test]
fn a_role_that_may_not_publish_is_no_failure() {
    run(async {
        let admin = connect().await;
        let setup = "CREATE ROLE plain LOGIN; CREATE SCHEMA daisi_plain AUTHORIZATION plain;";
        admin.batch_execute(setup).await.unwrap();
        admin.batch_execute("SET ROLE plain").await.unwrap();
        let options = Options { publication: Some("not_ours".to_owned()) };
        migrate::open(&admin, "plain", &options).await.unwrap();
        assert_eq!(
            ask(&admin, "SELECT count(*) FROM pg_publication WHERE pubname = 'not_ours'").await,
            "0"
        );
        assert_eq!(ask(&admin, "SELECT tableowner FROM pg_tables WHERE schemaname = 'daisi_plain' AND tablename = 'messages'").await, "plain");
    });
}

#[test]
#[ignore = "a measurement: cargo test --test database burst -- --ignored --nocapture"]
fn a_burst_of_companies() {
    run(async {
        let client = connect().await;
        let count: u32 = std::env::var("COMPANIES").map_or(50, |text| text.parse().unwrap());
        let started = Instant::now();
        for n in 0..count {
            migrate::open(&client, &format!("burst{n}"), &published()).await.unwrap();
        }
        println!(
            "new: {:.1} ms a company",
            started.elapsed().as_secs_f64() * 1e3 / f64::from(count)
        );
        let started = Instant::now();
        for n in 0..count {
            migrate::open(&client, &format!("burst{n}"), &published()).await.unwrap();
        }
        println!(
            "known: {:.2} ms a company",
            started.elapsed().as_secs_f64() * 1e3 / f64::from(count)
        );
    });
}

#[test]
fn the_command_tells_what_it_would_do_does_it_and_says_so() {
    let daisi = |args: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_daisi"));
        command.env_clear().env("POSTGRES_DSN", format!("{}?sslmode=disable", crate::world::url()));
        let output = command.arg("migrate").args(args).output().unwrap();
        let told = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        (output.status.code(), told.concat())
    };
    let check = |args: &[&str], code: i32, tells: &[&str]| {
        let (found, told) = daisi(args);
        assert_eq!(found, Some(code), "{args:?}\n{told}");
        assert!(tells.iter().all(|text| told.contains(text)), "{args:?}\n{told}");
    };
    check(&[], 2, &["--company", "--all"]);
    let dry = ["--company", "Cli1", "--company", "Cli2", "--dry-run"];
    check(&dry, 0, &["Cli1: daisi_cli1 would get create_tables, ", "2 of 2 companies looked at"]);
    run(async {
        let exists = "SELECT to_regnamespace('daisi_cli1') IS NOT NULL";
        assert_eq!(ask(&connect().await, exists).await, "f");
    });
    check(
        &["--company", "Cli1", "--publication", "daisi_cli"],
        0,
        &["Cli1: applied create_tables, add_columns, "],
    );
    // This year's and last year's, the default one, and at the end of a year those of the next.
    run(async {
        let months = "SELECT count(*) >= 25 FROM pg_inherits WHERE inhparent = 'daisi_cli1.messages'::regclass";
        assert_eq!(ask(&connect().await, months).await, "t");
    });
    check(
        &["--company", "Cli1", "--company", "a.b"],
        1,
        &["was up to date", "\"a.b\" is no company id", "1 of 2"],
    );
    check(
        &["--company", "CLI1", "--publication", ""],
        1,
        &["belongs to company \"Cli1\"", "0 of 1"],
    );
    // Other tests have schemas of their own here, broken ones too.
    assert!(daisi(&["--all", "--dry-run"]).1.contains("Cli1: daisi_cli1 is up to date"));
}
