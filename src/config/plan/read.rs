//! How the configuration becomes a plan: values are taken by path, and what is wrong is noted while the
//! default stands in, so that one pass finds every problem. Invariant: with no problem noted, no default
//! stood in for a bad value.

use super::{
    AckPolicy, CdcPlan, Config, ControlPlan, Cores, CredentialSource, Credentials, DlqPlan,
    Duration, Envelope, IngestPlan, IngestSource, KEYS, LeasePlan, LogPlan, MetricsPlan, NatsPlan,
    PathBuf, Plan, Problem, RedisPlan, Secret, ServerAddress, Stage, TelemetryPlan, TlsPlan,
    TraceSettings, Value, keys, rules,
};

use shards::edge::pg::{connect, describe};
use shards::edge::target::read_secret;

/// Subjects a preset stands for. Source: contract cdc.md §1.1.
const PRESETS: &[(&str, &str)] =
    &[("sequin", "sequin.*.*.*.*"), ("sequin-legacy", "sequin.changes.*.*.*.*")];

/// Stages other versions will have: named so that the message can say "not yet".
const STAGES_PLANNED: &[&str] = &["capture", "api", "outbox", "push", "mail"];

const STAGES_REMEDY: &str = r#"name some of "cdc", "ingest" and "dlq""#;
const SECRET_REMEDY: &str = "name a file with the secret that this user may read";
const SIGNING_REMEDY: &str = "name a file as the tools of NATS write it, that this user may read";

/// A secret as it was given: itself, or where it stands.
enum Given {
    Text(Secret),
    File(PathBuf),
}

pub(super) struct Reader<'a> {
    config: &'a Config,
    problems: Vec<Problem>,
    taken: Vec<bool>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(config: &'a Config) -> Self {
        Self { config, problems: config.problems().to_vec(), taken: vec![false; KEYS.len()] }
    }

    pub(super) fn into_problems(self) -> Vec<Problem> {
        self.problems
    }

    pub(super) fn plan(&mut self, cores: &Cores) -> Plan {
        let shard_cores = self.shard_cores(cores);
        let plan = Plan {
            stages: self.stages(),
            spin_before_park: self.duration("spin_before_park"),
            companies: self.texts("companies"),
            nats: self.nats(),
            redis: self.redis(),
            postgres_dsn: self.optional("postgres.dsn").map(Secret::new),
            postgres_connect_timeout: self.duration("postgres.connect_timeout"),
            cdc: self.cdc(),
            ingest: self.ingest(),
            dlq: self.dlq(),
            lease: LeasePlan { ttl: self.duration("lease.ttl"), bucket: self.text("lease.bucket") },
            control: self.control(cores, &shard_cores),
            metrics: MetricsPlan {
                companies_max: self.count("metrics.companies"),
                unhandled_fields: self.flag("metrics.unhandled_fields"),
            },
            log: self.log(),
            telemetry: self.telemetry(),
            shard_cores,
        };
        self.check_relations(&plan);
        debug_assert!(self.taken.iter().all(|&taken| taken), "a key that the plan never reads");
        plan
    }

    fn stages(&mut self) -> Vec<Stage> {
        let mut stages = Vec::new();
        for name in self.texts("stages") {
            let stage = match name.as_str() {
                "cdc" => Stage::Cdc,
                "ingest" => Stage::Ingest,
                "dlq" => Stage::Dlq,
                planned if STAGES_PLANNED.contains(&planned) => {
                    let what =
                        format!("stage {planned:?} is planned, but this version does not have it");
                    self.note("stages", what, STAGES_REMEDY);
                    continue;
                }
                unknown => {
                    self.note("stages", format!("stage {unknown:?} does not exist"), STAGES_REMEDY);
                    continue;
                }
            };
            stages.push(stage);
        }
        stages
    }

    fn shard_cores(&mut self, cores: &Cores) -> Vec<usize> {
        let order = cores.order();
        let named = self.counts("cores");
        let wanted = match self.take("shards") {
            Value::Count(count) => Some(usize::try_from(count).unwrap_or(usize::MAX)),
            _ => None,
        };
        if let Some(absent) = named.iter().find(|core| !order.contains(core)) {
            let what = format!("CPU {absent} is not among those this process may use ({order:?})");
            self.note("cores", what, "name CPUs of the mask, or leave the list empty");
        }
        if !named.is_empty() && wanted.is_some_and(|wanted| wanted != named.len()) {
            let what = format!("{} CPUs for {} shards", named.len(), wanted.unwrap_or(0));
            self.note("cores", what, "name one CPU a shard, or set shards = \"auto\"");
        }
        if !named.is_empty() {
            return named;
        }
        let count = wanted.unwrap_or_else(|| cores.shards_auto());
        if count > order.len() {
            let what = format!("{count} shards, and this process may use {} CPUs", order.len());
            self.note(
                "shards",
                what,
                "set shards = \"auto\", or widen the CPU mask of the process",
            );
        }
        order.into_iter().take(count).collect()
    }

    fn nats(&mut self) -> NatsPlan {
        let urls = self.texts("nats.servers");
        NatsPlan {
            servers: urls.iter().map(|url| parse_address(url, 4222)).collect(),
            credentials: self.credentials(),
            tls: TlsPlan {
                ca_file: self.file("nats.tls.ca_file"),
                identity: self.tls_identity(),
                first: self.flag("nats.tls.first"),
            },
            connect_timeout: self.duration("nats.connect_timeout"),
            ping_interval: self.duration("nats.ping_interval"),
            request_timeout: self.duration("nats.request_timeout"),
            frame_bytes_max: self.size("nats.frame_max"),
            stream_replicas: self.count("nats.stream_replicas"),
        }
    }

    fn credentials(&mut self) -> CredentialSource {
        let user = self.optional("nats.user");
        let password = self.given("nats.password", "nats.password_file");
        let token = self.given("nats.token", "nats.token_file");
        let nkey = self.optional("nats.nkey_seed_file");
        let credentials = self.optional("nats.credentials_file");
        let ways = [user.is_some(), token.is_some(), nkey.is_some(), credentials.is_some()];
        if ways.iter().filter(|&&way| way).count() > 1 {
            let what = "more than one way to authenticate".to_owned();
            self.note(
                "nats.user",
                what,
                "keep one of user, token, nkey_seed_file, credentials_file",
            );
        }
        if user.is_some() != password.is_some() {
            let what = "user and password belong together".to_owned();
            self.note("nats.user", what, "set both, or a token");
        }
        let source = match (user, password, token, nkey, credentials) {
            (Some(user), Some(Given::Text(password)), ..) => {
                CredentialSource::Fixed(Credentials::UserPassword { user, password })
            }
            (Some(user), Some(Given::File(path)), ..) => {
                CredentialSource::PasswordFile { user, path }
            }
            (_, _, Some(Given::Text(token)), ..) => {
                CredentialSource::Fixed(Credentials::Token(token))
            }
            (_, _, Some(Given::File(path)), ..) => CredentialSource::TokenFile(path),
            (_, _, _, Some(file), _) => CredentialSource::NKeyFile(file.into()),
            (_, _, _, _, Some(file)) => CredentialSource::CredsFile(file.into()),
            _ => CredentialSource::Fixed(Credentials::None),
        };
        self.check_file_of(&source);
        source
    }

    /// The file is read for each connection; here too, so that a typing error shows before the first.
    fn check_file_of(&mut self, source: &CredentialSource) {
        let Err(what) = source.load() else { return };
        let (path, remedy) = match source {
            CredentialSource::Fixed(_) => return,
            CredentialSource::PasswordFile { .. } => ("nats.password_file", SECRET_REMEDY),
            CredentialSource::TokenFile(_) => ("nats.token_file", SECRET_REMEDY),
            CredentialSource::NKeyFile(_) => ("nats.nkey_seed_file", SIGNING_REMEDY),
            CredentialSource::CredsFile(_) => ("nats.credentials_file", SIGNING_REMEDY),
        };
        self.note(path, what, remedy);
    }

    fn tls_identity(&mut self) -> Option<(PathBuf, PathBuf)> {
        match (self.file("nats.tls.cert_file"), self.file("nats.tls.key_file")) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            _ => {
                let what = "certificate and key belong together".to_owned();
                self.note(
                    "nats.tls.cert_file",
                    what,
                    "set both cert_file and key_file, or neither",
                );
                None
            }
        }
    }

    fn redis(&mut self) -> RedisPlan {
        let mut server = parse_address(&self.text("redis.url"), 6379);
        let username = self.optional("redis.username");
        let password = self.secret("redis.password", "redis.password_file");
        // The URL form `redis://:password@host` has an empty user: the default one.
        server.user = server.user.filter(|user| !user.is_empty()).or(username);
        server.password = server.password.or(password);
        let database = if server.path.is_empty() { Ok(0) } else { server.path.parse() };
        if database.is_err() {
            let what = "what follows the host is not the number of a database".to_owned();
            self.note("redis.url", what, "write redis://host:port/0");
        }
        RedisPlan {
            server,
            database: database.unwrap_or(0),
            connect_timeout: self.duration("redis.connect_timeout"),
            command_timeout: self.duration("redis.command_timeout"),
            tls: TlsPlan { ca_file: self.file("redis.tls.ca_file"), ..TlsPlan::default() },
        }
    }

    fn cdc(&mut self) -> CdcPlan {
        let output_prefixes = self.texts("cdc.output_prefixes");
        CdcPlan {
            stream: self.text("cdc.stream"),
            subjects: self.texts("cdc.subjects").into_iter().map(resolve_preset).collect(),
            consumer: self.text("cdc.consumer"),
            stream_max_age: self.duration("cdc.stream_max_age"),
            stream_bytes_max: self.size("cdc.stream_max_bytes"),
            partitions: self.count("cdc.partitions"),
            tables: self.texts("cdc.tables"),
            envelope: match self.text("cdc.envelope").as_str() {
                "sequin" => Envelope::Sequin,
                "debezium" => Envelope::Debezium,
                _ => Envelope::Auto,
            },
            forward_backfill: self.flag("cdc.forward_backfill"),
            output_stream: self.text("cdc.output_stream"),
            output_subjects: self.output_subjects(&output_prefixes),
            output_prefixes,
            output_max_age: self.duration("cdc.output_max_age"),
            output_bytes_max: self.size("cdc.output_max_bytes"),
            output_duplicate_window: self.duration("cdc.output_duplicate_window"),
            dedup_ttl: self.duration("cdc.dedup_ttl"),
            dedup_required: self.flag("cdc.dedup_required"),
            dedup_lru: self.count("cdc.dedup_lru"),
            extend_stream: self.flag("cdc.extend_stream"),
            legacy_dedup: self.flag("cdc.legacy_dedup"),
            ack_wait: self.duration("cdc.ack_wait"),
            max_ack_pending: self.count("cdc.max_ack_pending"),
            max_in_flight: self.count("cdc.max_in_flight"),
            in_flight_bytes_max: self.size("cdc.max_in_flight_bytes"),
            ack_policy: match self.text("cdc.ack_policy").as_str() {
                "all" => AckPolicy::All,
                "explicit" => AckPolicy::Explicit,
                _ => AckPolicy::Auto,
            },
            publish_window: self.count("cdc.publish_window"),
            publish_timeout: self.duration("cdc.publish_timeout"),
            retry_attempts: self.count("cdc.retry_attempts"),
            retry_delay_min: self.duration("cdc.retry_delay_min"),
            retry_delay_max: self.duration("cdc.retry_delay_max"),
            dlq_stream: self.text("cdc.dlq_stream"),
            dlq_subject: self.text("cdc.dlq_subject"),
            dlq_payload_bytes_max: self.size("cdc.dlq_payload_max"),
        }
    }

    fn ingest(&mut self) -> IngestPlan {
        IngestPlan {
            realtime: IngestSource {
                stream: self.text("ingest.stream"),
                consumer: self.text("ingest.consumer"),
                max_age: self.duration("ingest.stream_max_age"),
                bytes_max: self.size("ingest.stream_max_bytes"),
            },
            history: IngestSource {
                stream: self.text("ingest.history_stream"),
                consumer: self.text("ingest.history_consumer"),
                max_age: self.duration("ingest.history_max_age"),
                bytes_max: self.size("ingest.history_max_bytes"),
            },
            extend_stream: self.flag("ingest.extend_stream"),
            ack_wait: self.duration("ingest.ack_wait"),
            max_ack_pending: self.count("ingest.max_ack_pending"),
            max_in_flight: self.count("ingest.max_in_flight"),
            in_flight_bytes_max: self.size("ingest.max_in_flight_bytes"),
            rate_limit: self.count("ingest.rate_limit"),
            batch_max: self.count("ingest.batch_max"),
            batch_bytes_max: self.size("ingest.batch_max_bytes"),
            connections: self.count("ingest.connections"),
            statement_timeout: self.duration("ingest.statement_timeout"),
            lock_timeout: self.duration("ingest.lock_timeout"),
            statements_max: self.count("ingest.statements_max"),
            schemas: self.optional("ingest.schemas").map(PathBuf::from),
            publication: self.optional("ingest.publication"),
            absent_unread_resets: self.text("ingest.absent_unread") == "reset",
            post_scan_delay: self.duration("ingest.post_scan_delay"),
            clock_skew: self.duration("ingest.clock_skew"),
        }
    }

    fn dlq(&mut self) -> DlqPlan {
        DlqPlan {
            consumer: self.text("dlq.consumer"),
            max_retries: self.count("dlq.max_retries"),
            delete_settled: self.flag("dlq.delete_settled"),
            delay_min: self.duration("dlq.retry_delay_min"),
            delay_max: self.duration("dlq.retry_delay_max"),
            ack_wait: self.duration("dlq.ack_wait"),
            max_ack_pending: self.count("dlq.max_ack_pending"),
            max_in_flight: self.count("dlq.max_in_flight"),
        }
    }

    fn output_subjects(&mut self, prefixes: &[String]) -> Vec<String> {
        let subjects = self.texts("cdc.output_subjects");
        if subjects.is_empty() {
            return prefixes.iter().map(|prefix| format!("{prefix}.>")).collect();
        }
        // Depths differ by table, so only `prefix.>` (or wider) surely captures all that is published.
        let captured = |prefix: &String| subjects.iter().any(|subject| covers(subject, prefix));
        if let Some(prefix) = prefixes.iter().find(|&prefix| !captured(prefix)) {
            let what =
                format!("events under {prefix:?} would be captured by no subject of the list");
            self.note(
                "cdc.output_subjects",
                what,
                &format!("add \"{prefix}.>\", or empty the list"),
            );
        }
        subjects
    }

    fn control(&mut self, cores: &Cores, shard_cores: &[usize]) -> ControlPlan {
        let listen = self.text("control.listen");
        let core: Option<usize> = match self.take("control.core") {
            Value::Count(core) => usize::try_from(core).ok(),
            _ => None,
        };
        let mut mask: Vec<usize> = cores.groups.concat();
        mask.sort_unstable();
        if let Some(core) = core.filter(|core| shard_cores.contains(core) && mask.len() > 1) {
            let what = format!("CPU {core} already has a shard");
            self.note(
                "control.core",
                what,
                "choose a CPU that is not in `cores`, or remove this key",
            );
        }
        if let Some(core) = core.filter(|core| !mask.contains(core)) {
            let what = format!("CPU {core} is not among those this process may use");
            self.note("control.core", what, "choose a CPU of the mask, or remove this key");
        }
        ControlPlan {
            listen: listen.parse().unwrap_or_else(|_| ([127, 0, 0, 1], 9464).into()),
            core: core.or_else(|| mask.into_iter().find(|cpu| !shard_cores.contains(cpu))),
            drain_deadline: self.duration("control.drain_deadline"),
            stall_after: self.duration("control.stall_after"),
        }
    }

    fn log(&mut self) -> LogPlan {
        let level = self.text("log.level");
        LogPlan {
            level: level.parse().unwrap_or(tracing::Level::INFO),
            json: self.text("log.format") == "json",
        }
    }

    fn telemetry(&mut self) -> TelemetryPlan {
        let headers = self.secret("telemetry.otlp_headers", "telemetry.otlp_headers_file");
        let headers = headers.map_or(Ok(Vec::new()), |text| rules::header_pairs(text.expose()));
        if let Err(what) = headers {
            let remedy = "write name=value, separated by commas";
            self.note("telemetry.otlp_headers_file", what.to_owned(), remedy);
        }
        let secret = |(name, value)| (name, Secret::new(value));
        let ratio = self.text("telemetry.sample_ratio").parse().unwrap_or(0.0);
        TelemetryPlan {
            endpoint: self.optional("telemetry.otlp_endpoint"),
            headers: headers.unwrap_or_default().into_iter().map(secret).collect(),
            sampling: TraceSettings::of_ratio(ratio),
            service: self.text("telemetry.service_name"),
        }
    }

    fn check_relations(&mut self, plan: &Plan) {
        let cdc = &plan.cdc;
        self.ordered(
            "cdc.max_in_flight",
            cdc.max_in_flight,
            "cdc.max_ack_pending",
            cdc.max_ack_pending,
        );
        self.ordered(
            "cdc.publish_window",
            cdc.publish_window,
            "cdc.max_in_flight",
            cdc.max_in_flight,
        );
        self.ordered("cdc.ack_wait", cdc.ack_wait, "cdc.dedup_ttl", cdc.dedup_ttl);
        let (delay_min, delay_max) = (cdc.retry_delay_min, cdc.retry_delay_max);
        self.ordered("cdc.retry_delay_min", delay_min, "cdc.retry_delay_max", delay_max);
        let (window, age) = (cdc.output_duplicate_window, cdc.output_max_age);
        self.ordered("cdc.output_duplicate_window", window, "cdc.output_max_age", age);
        if cdc.publish_timeout >= cdc.ack_wait {
            let what = "not shorter than cdc.ack_wait: an event would come again before its resend"
                .to_owned();
            self.note("cdc.publish_timeout", what, "lower it, or raise cdc.ack_wait");
        }
        self.check_streams(cdc);
        self.check_subjects(cdc);
        self.check_ingest(plan);
    }

    fn check_ingest(&mut self, plan: &Plan) {
        let ingest = &plan.ingest;
        let (held, pending) = (ingest.max_in_flight, ingest.max_ack_pending);
        self.ordered("ingest.max_in_flight", held, "ingest.max_ack_pending", pending);
        let (lock, statement) = (ingest.lock_timeout, ingest.statement_timeout);
        self.ordered("ingest.lock_timeout", lock, "ingest.statement_timeout", statement);
        let dlq = &plan.dlq;
        let (held, pending) = (dlq.max_in_flight, dlq.max_ack_pending);
        self.ordered("dlq.max_in_flight", held, "dlq.max_ack_pending", pending);
        let (delay_min, delay_max) = (dlq.delay_min, dlq.delay_max);
        self.ordered("dlq.retry_delay_min", delay_min, "dlq.retry_delay_max", delay_max);
        if !plan.stages.contains(&Stage::Ingest) {
            if plan.stages.contains(&Stage::Dlq) {
                let what = "the dlq stage tries events again through the ingest stage".to_owned();
                self.note("stages", what, r#"add "ingest", or take "dlq" out"#);
            }
            return;
        }
        match &plan.postgres_dsn {
            None => {
                let what = "not set, and the ingest stage writes to PostgreSQL".to_owned();
                self.note("postgres.dsn", what, "set it, or POSTGRES_DSN in the environment");
            }
            Some(dsn) => {
                if let Err(error) = connect::parse(dsn.expose()) {
                    let what = describe(&error);
                    self.note("postgres.dsn", what, "write postgres://user:password@host/db");
                }
            }
        }
        if ingest.realtime.stream == ingest.history.stream {
            let what = "realtime and history events share a stream".to_owned();
            self.note("ingest.history_stream", what, "give history events a stream of their own");
        }
        let others = [&plan.cdc.stream, &plan.cdc.output_stream, &plan.cdc.dlq_stream];
        for (key, source) in
            [("ingest.stream", &ingest.realtime), ("ingest.history_stream", &ingest.history)]
        {
            if others.contains(&&source.stream) {
                let what = "another stage or the dead letters use this stream".to_owned();
                self.note(key, what, "give chat events a stream of their own");
            }
        }
    }

    /// Notes that `lesser` may not be above `greater`.
    fn ordered<T: PartialOrd>(&mut self, lesser: &str, low: T, greater: &str, high: T) {
        if low > high {
            let what = format!("above {greater} ({})", self.shown(greater));
            self.note(lesser, what, &format!("lower it, or raise {greater}"));
        }
    }

    fn check_streams(&mut self, cdc: &CdcPlan) {
        if cdc.stream == cdc.output_stream {
            let what =
                "source and output are one stream: daisi would read what it publishes".to_owned();
            self.note("cdc.output_stream", what, "give the output a stream of its own");
        }
        if cdc.dlq_stream == cdc.stream || cdc.dlq_stream == cdc.output_stream {
            let what = "dead letters share a stream with live events".to_owned();
            self.note("cdc.dlq_stream", what, "give dead letters a stream of their own");
        }
    }

    fn check_subjects(&mut self, cdc: &CdcPlan) {
        for (index, subject) in cdc.subjects.iter().enumerate() {
            if let Some(other) =
                cdc.subjects[..index].iter().find(|other| rules::overlap(other, subject))
            {
                let what = format!("{other:?} and {subject:?} overlap, which a stream refuses");
                self.note("cdc.subjects", what, "keep the wider one");
            }
        }
        let dead = format!("{}.>", cdc.dlq_subject);
        let written = cdc.output_prefixes.iter().map(|prefix| format!("{prefix}.>")).chain([dead]);
        for subject in written {
            if let Some(source) =
                cdc.subjects.iter().find(|source| rules::overlap(source, &subject))
            {
                let what = format!(
                    "source {source:?} takes in what daisi itself publishes to {subject:?}"
                );
                self.note(
                    "cdc.subjects",
                    what,
                    "choose source subjects and prefixes that do not meet",
                );
            }
        }
    }

    fn note(&mut self, path: &str, what: String, remedy: &str) {
        let found = keys::find(path);
        self.problems.push(Problem {
            key: path.to_owned(),
            value: found.and_then(|(index, _)| self.config.shown(index)),
            origin: found.map(|(index, _)| self.config.origin(index).clone()),
            what,
            remedy: remedy.to_owned(),
        });
    }

    fn shown(&self, path: &str) -> String {
        keys::find(path).and_then(|(index, _)| self.config.shown(index)).unwrap_or_default()
    }

    /// The value of that key; its default, with a problem noted, if it cannot be read.
    fn take(&mut self, path: &str) -> Value {
        let Some((index, key)) = keys::find(path) else {
            debug_assert!(false, "no key {path}");
            return Value::Unset;
        };
        self.taken[index] = true;
        let Some(raw) = self.config.raw(index) else { return key.default_value() };
        key.kind.read(raw).unwrap_or_else(|what| {
            // The message may quote the value, so a secret's gets none of it.
            let what =
                if key.mask == keys::Mask::Open { what } else { "not acceptable".to_owned() };
            self.note(path, what, &format!("write {}", key.kind.remedy()));
            key.default_value()
        })
    }

    fn text(&mut self, path: &str) -> String {
        self.optional(path).unwrap_or_default()
    }

    fn optional(&mut self, path: &str) -> Option<String> {
        if let Value::Text(text) = self.take(path) { Some(text) } else { None }
    }

    fn texts(&mut self, path: &str) -> Vec<String> {
        if let Value::Texts(texts) = self.take(path) { texts } else { Vec::new() }
    }

    fn counts(&mut self, path: &str) -> Vec<usize> {
        let Value::Counts(counts) = self.take(path) else { return Vec::new() };
        counts.into_iter().filter_map(|count| usize::try_from(count).ok()).collect()
    }

    fn flag(&mut self, path: &str) -> bool {
        self.take(path) == Value::Flag(true)
    }

    fn duration(&mut self, path: &str) -> Duration {
        if let Value::Duration(span) = self.take(path) { span } else { Duration::ZERO }
    }

    #[expect(
        clippy::expect_used,
        reason = "the bounds of every key in keys.rs fit its type in the plan"
    )]
    fn count<T: TryFrom<u64>>(&mut self, path: &str) -> T {
        let count = if let Value::Count(count) = self.take(path) { count } else { 0 };
        T::try_from(count).ok().expect("bounds fit the type")
    }

    #[expect(
        clippy::expect_used,
        reason = "the bounds of every key in keys.rs fit its type in the plan"
    )]
    fn size<T: TryFrom<u64>>(&mut self, path: &str) -> T {
        let size = if let Value::Size(size) = self.take(path) { size } else { 0 };
        T::try_from(size).ok().expect("bounds fit the type")
    }

    /// A path that must be a readable file by now, so that a typing error shows before the first connection.
    fn file(&mut self, path: &str) -> Option<PathBuf> {
        let file = PathBuf::from(self.optional(path)?);
        if let Err(error) = std::fs::File::open(&file) {
            self.note(path, format!("cannot be read: {error}"), "name a file this user may read");
        }
        Some(file)
    }

    fn given(&mut self, path: &str, file_path: &str) -> Option<Given> {
        match (self.optional(path), self.optional(file_path)) {
            (Some(_), Some(_)) => {
                let what = format!("{file_path} is set too");
                self.note(path, what, "keep one of the two");
                None
            }
            (Some(text), None) => Some(Given::Text(Secret::new(text))),
            (None, Some(file)) => Some(Given::File(file.into())),
            (None, None) => None,
        }
    }

    /// A secret that is read once.
    fn secret(&mut self, path: &str, file_path: &str) -> Option<Secret> {
        let file = match self.given(path, file_path)? {
            Given::Text(secret) => return Some(secret),
            Given::File(file) => file,
        };
        let secret = read_secret(&file);
        secret.map_err(|what| self.note(file_path, what, SECRET_REMEDY)).ok()
    }
}

fn resolve_preset(subject: String) -> String {
    let preset = PRESETS.iter().find(|(name, _)| *name == subject);
    preset.map_or(subject, |(_, pattern)| (*pattern).to_owned())
}

/// Does `pattern` capture everything under `prefix`?
fn covers(pattern: &str, prefix: &str) -> bool {
    let Some(head) = pattern.strip_suffix('>') else { return false };
    let mut wanted = prefix.split('.');
    head.split_terminator('.')
        .all(|token| wanted.next().is_some_and(|want| token == "*" || token == want))
}

/// Takes an address apart that its rule has admitted; what is bad stands in as loopback, with a problem noted
/// by the rule.
fn parse_address(url: &str, port_default: u16) -> ServerAddress {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (credentials, host_port) = match authority.rsplit_once('@') {
        Some((credentials, host_port)) => (Some(credentials), host_port),
        None => (None, authority),
    };
    let (host, port) = rules::split_host_port(host_port, port_default)
        .unwrap_or_else(|_| ("127.0.0.1".to_owned(), port_default));
    let (user, password) = match credentials.map(|text| text.split_once(':').unwrap_or((text, "")))
    {
        Some((user, "")) => (Some(percent_decoded(user)), None),
        Some((user, password)) => {
            (Some(percent_decoded(user)), Some(Secret::new(percent_decoded(password))))
        }
        None => (None, None),
    };
    let tls = matches!(scheme, "tls" | "rediss");
    ServerAddress { host, port, tls, user, password, path: path.to_owned() }
}

/// `p%40ss` is `p@ss`; what is no escape stays as it is (RFC 3986 §2.1).
fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let escape = tail.get(..2).filter(|_| first == b'%');
        let decoded =
            escape.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        bytes.push(decoded.unwrap_or(first));
        rest = if decoded.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
