//! What has to exist before anything is read: output, dead-letter and source streams, and the buckets of
//! leases and positions. One request at a time; created when missing, never altered when they exist
//! (`cdc.source.extend` may add missing subjects). Every shard runs it on every connection: creating
//! what exists with the same configuration is a success.

use super::bus::{Answer, Asker, Bus};
use super::reader::GONE_WAIT;
use super::settings::{Settings, StageName, StreamPlan};
use crate::clock::{MS, Now, SEC};
use crate::domain::cdc::company_token;
use crate::id::shard_of;
use crate::wire::nats::jetstream::ServerVersion;
use crate::wire::nats::subject::Pattern;
use serde_json::{Value, json};

/// Retry after an answer that was no success.
const RETRY: u64 = 500 * MS;
/// The server has not the storage that the stream's bound would reserve.
const NO_STORAGE: u64 = 10_047;
/// A stream with less room than this is not worth creating.
const STREAM_BYTES_MIN: i64 = 256 << 20;
/// How long a position's bucket remembers a message id, ns.
const BUCKET_DUPLICATE_WINDOW: u64 = 120 * SEC;

/// What was found out.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    /// Stream of each output prefix.
    pub(super) output_streams: Vec<String>,
    /// Stream of the dead letters.
    pub(super) dlq_stream: String,
    /// For each source: it deletes what is acknowledged, and wants an ack for each message.
    pub(super) workqueues: Vec<bool>,
    /// Life of a lease, as the bucket really has it.
    pub(super) lease_ttl: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// No connection yet.
    Idle,
    Find(Target),
    Inspect(Target),
    Create(Target),
    Extend(usize),
    /// Make a durable that nobody reads, where only interest keeps messages: ours is deleted now and then.
    Hold(usize),
    Finished,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Output(usize),
    DeadLetters,
    Source(usize),
    /// The stream that splits the source of CDC by company.
    Split,
    Leases,
    Positions,
}

/// The sequence of requests.
pub(super) struct Setup {
    step: Step,
    retry_at: Option<u64>,
    pending: Option<Value>,
    /// The source that has its durable to hold it.
    held: Option<usize>,
    /// How often a new stream's bound on bytes was cut to an eighth: the server reserves it, and may not have
    /// it, nor should one stream take what the others need.
    cuts: u32,
    /// Streams that were there, on this connection or an earlier one.
    seen: Vec<String>,
    /// The one that went, and whose name has had the time to become free.
    rested: Option<Target>,
    pub(super) facts: Facts,
    /// Why it does not go on; `None` while all is well.
    pub(super) trouble: Option<String>,
}

impl Setup {
    pub(super) fn new() -> Self {
        Self {
            step: Step::Idle,
            retry_at: None,
            pending: None,
            held: None,
            cuts: 0,
            seen: Vec::new(),
            rested: None,
            facts: Facts::default(),
            trouble: None,
        }
    }

    pub(super) fn is_finished(&self) -> bool {
        self.step == Step::Finished
    }

    /// Why nothing can be read yet, or what the server complained of since; `None` once all is well.
    pub(super) fn hindrance(&self) -> Option<String> {
        let looking = || "streams and buckets are being looked at".to_owned();
        self.trouble.clone().or_else(|| (!self.is_finished()).then(looking))
    }

    /// Begin, on a new connection.
    pub(super) fn start(&mut self, now: Now, settings: &Settings, bus: &mut Bus) {
        self.forget();
        // CDC alone publishes anything but dead letters.
        let first = if settings.cdc.enabled { Target::Output(0) } else { Target::DeadLetters };
        self.step = Step::Find(first);
        let version = &bus.conn.info().version;
        if settings.cdc.enabled
            && settings.cdc.source.partitions > 1
            && ServerVersion::parse(version).is_some_and(|server| !server.has_subject_transform())
        {
            // An older server would take the configuration and ignore what makes the split.
            let trouble = format!(
                "cdc.partitions = {} needs NATS 2.10 or newer, and this server is {version}: \
                 upgrade it, or set cdc.partitions = 1",
                settings.cdc.source.partitions
            );
            tracing::error!(%trouble, "nothing is read");
            self.trouble = Some(trouble);
            return; // The next connection may be to a newer one.
        }
        self.send(now, settings, bus);
    }

    /// Time goes by: send again what was answered with trouble.
    pub(super) fn tick(&mut self, now: Now, settings: &Settings, bus: &mut Bus) {
        if self.retry_at.is_some_and(|at| now.mono >= at) {
            self.retry_at = None;
            self.send(now, settings, bus);
        }
    }

    /// The answer to our request.
    pub(super) fn on_answer(
        &mut self,
        now: Now,
        settings: &Settings,
        answer: &Answer<'_>,
        bus: &mut Bus,
    ) {
        let value = answer.value("JetStream is not enabled for this account");
        let outcome = value.and_then(|value| self.advance(settings, &value));
        match outcome {
            Ok(Step::Create(target)) if self.is_just_gone(target, settings) => {
                self.rested = Some(target);
                let name = self.name(target, settings);
                tracing::warn!(stream = %name, "a stream is gone; it is made again in a moment");
                self.trouble = Some(format!("stream {name} is gone"));
                self.retry_at = Some(now.mono + GONE_WAIT); // And then it is looked for once more.
            }
            Ok(step) => {
                self.trouble = None;
                self.step = step;
                self.send(now, settings, bus);
            }
            Err(trouble) => {
                if let Step::Extend(place) = self.step {
                    // It may have been done, or the stream be another by now: look again.
                    self.step = Step::Inspect(Target::Source(place));
                }
                self.trouble = Some(trouble);
                self.retry_at = Some(now.mono + RETRY);
            }
        }
    }

    // All but what was there: it may be on its way out right now.
    fn forget(&mut self) {
        *self = Self { seen: std::mem::take(&mut self.seen), ..Self::new() };
    }

    // A bound that was refused and is cut needs no rest: nothing was made.
    fn is_just_gone(&self, target: Target, settings: &Settings) -> bool {
        let is_looking = matches!(self.step, Step::Find(_) | Step::Inspect(_));
        is_looking
            && self.rested != Some(target)
            && self.seen.contains(&self.name(target, settings))
    }

    fn send(&mut self, now: Now, settings: &Settings, bus: &mut Bus) {
        let (subject, body) = match self.step {
            Step::Idle | Step::Finished => return,
            Step::Find(target) => {
                let body = json!({ "subject": probe(target, settings) });
                ("$JS.API.STREAM.NAMES".to_owned(), body.to_string())
            }
            Step::Inspect(target) => {
                let name = self.name(target, settings);
                (format!("$JS.API.STREAM.INFO.{name}"), String::new())
            }
            Step::Create(target) => {
                let name = self.name(target, settings);
                let config = stream_config(target, &name, self.cuts, settings);
                (format!("$JS.API.STREAM.CREATE.{name}"), config.to_string())
            }
            Step::Extend(place) => {
                let name = self.name(Target::Source(place), settings);
                let config = self.pending.take().unwrap_or_default();
                (format!("$JS.API.STREAM.UPDATE.{name}"), config.to_string())
            }
            Step::Hold(place) => {
                let source = settings.sources()[place];
                let (stream, name) = (&source.stream, format!("{}_hold", source.consumer));
                let config = json!({
                    "durable_name": name, "name": name, "ack_policy": "explicit",
                    "deliver_policy": "all", "replay_policy": "instant", "max_deliver": -1,
                    "description": "daisi: never read, keeps what is not read yet from being dropped",
                });
                let body = json!({ "stream_name": stream, "config": config });
                (format!("$JS.API.CONSUMER.DURABLE.CREATE.{stream}.{name}"), body.to_string())
            }
        };
        bus.request(now, Asker::Setup, &subject, body.as_bytes());
    }

    fn advance(&mut self, settings: &Settings, answer: &Value) -> Result<Step, String> {
        let error = &answer["error"];
        let missing = error["err_code"] == 10_059 || error["code"] == 404;
        match self.step {
            Step::Find(target) if error.is_null() => match first_name(answer) {
                Some(name) => {
                    self.found(target, name);
                    Ok(Step::Inspect(target))
                }
                None => {
                    self.found(target, self.default_name(target, settings));
                    Ok(Step::Create(target))
                }
            },
            Step::Inspect(target) if missing => Ok(Step::Create(target)),
            Step::Inspect(target) | Step::Create(target) if error.is_null() => {
                self.check(target, settings, &answer["config"])
            }
            Step::Create(target)
                if error["err_code"] == NO_STORAGE && self.can_cut(target, settings) =>
            {
                self.cuts += 1;
                Ok(Step::Create(target))
            }
            Step::Extend(place) if error.is_null() => Ok(after(Target::Source(place), settings)),
            Step::Hold(place) if error.is_null() => {
                self.held = Some(place);
                Ok(Step::Inspect(Target::Source(place)))
            }
            step => Err(format!("{}: {}", self.doing(step, settings), api_error(error))),
        }
    }

    // Look at what exists, take note, and say what would break a promise.
    fn check(
        &mut self,
        target: Target,
        settings: &Settings,
        config: &Value,
    ) -> Result<Step, String> {
        let name = self.name(target, settings);
        if !self.seen.contains(&name) {
            self.seen.push(name.clone());
        }
        if std::mem::take(&mut self.cuts) > 0 {
            tracing::warn!(stream = %name, bytes_max = config["max_bytes"].as_i64(),
                "the server's storage is too small for the planned bound; a smaller one was set");
        }
        if config["no_ack"] == true && !matches!(target, Target::Source(_)) {
            return Err(format!("stream {name} acknowledges nothing (no_ack): set no_ack=false"));
        }
        if config["persist_mode"] == "async" && !matches!(target, Target::Source(_)) {
            return Err(format!(
                "stream {name} acknowledges before it writes (persist_mode=async)"
            ));
        }
        match target {
            Target::Split => {
                self.facts.workqueues[0] = config["retention"] == "workqueue";
                let missing = missing_transforms(config, settings);
                if !missing.is_empty() {
                    return Err(format!(
                        "stream {name} does not split {} of {} into {} partitions: delete it, and it is \
                         made anew",
                        missing.join(", "),
                        settings.cdc.source.stream,
                        settings.cdc.source.partitions,
                    ));
                }
            }
            Target::Source(place) => {
                self.facts.workqueues.truncate(place);
                self.facts.workqueues.push(config["retention"] == "workqueue");
                let source = settings.sources()[place];
                let is_held = self.held == Some(place) || source.stage == StageName::Cdc;
                if config["retention"] == "interest" && !is_held {
                    return Ok(Step::Hold(place));
                }
                let missing = missing_subjects(config, &source.plan.subjects);
                if !missing.is_empty() && source.extend {
                    let mut config = config.clone();
                    if let Some(subjects) = config["subjects"].as_array_mut() {
                        subjects.extend(missing.into_iter().map(Value::from));
                    }
                    self.pending = Some(config);
                    return Ok(Step::Extend(place));
                }
                if !missing.is_empty() {
                    tracing::warn!(stream = %name, subjects = ?missing,
                        "the source stream does not capture these subjects; \
                         add them, or set {}.extend_stream = true", source.table);
                }
            }
            Target::Leases => {
                self.facts.lease_ttl = config["max_age"].as_u64().unwrap_or(0);
                if self.facts.lease_ttl < SEC {
                    return Err(format!("bucket {name} has no max_age of a second or more"));
                }
            }
            Target::Output(_) | Target::DeadLetters | Target::Positions => {}
        }
        Ok(after(target, settings))
    }

    fn can_cut(&self, target: Target, settings: &Settings) -> bool {
        let config = stream_config(target, "", self.cuts + 1, settings);
        config["max_bytes"].as_i64().is_some_and(|bytes| bytes >= STREAM_BYTES_MIN)
    }

    fn found(&mut self, target: Target, name: String) {
        match target {
            Target::Output(place) => {
                self.facts.output_streams.truncate(place);
                self.facts.output_streams.push(name);
            }
            Target::DeadLetters => self.facts.dlq_stream = name,
            Target::Source(_) | Target::Split | Target::Leases | Target::Positions => {}
        }
    }

    fn default_name(&self, target: Target, settings: &Settings) -> String {
        match target {
            Target::Output(0) => settings.cdc.output_stream.name.clone(),
            Target::Output(place) => {
                format!(
                    "{}_{}",
                    settings.cdc.output_stream.name, settings.cdc.output_prefixes[place]
                )
            }
            Target::DeadLetters => settings.cdc.dlq_stream.name.clone(),
            Target::Source(place) => settings.sources()[place].stream.clone(),
            Target::Split => settings.cdc.source.read_stream(),
            Target::Leases => format!("KV_{}", settings.lease.bucket),
            Target::Positions => format!("KV_{}", settings.lease.position_bucket),
        }
    }

    fn name(&self, target: Target, settings: &Settings) -> String {
        match target {
            Target::Output(place) => self.facts.output_streams[place].clone(),
            Target::DeadLetters => self.facts.dlq_stream.clone(),
            _ => self.default_name(target, settings),
        }
    }

    fn doing(&self, step: Step, settings: &Settings) -> String {
        match step {
            Step::Find(target) => format!("looking for the stream of {}", probe(target, settings)),
            Step::Inspect(target) => format!("reading stream {}", self.name(target, settings)),
            Step::Create(target) => format!("creating stream {}", self.name(target, settings)),
            Step::Extend(place) => {
                format!("adding subjects to stream {}", settings.sources()[place].stream)
            }
            Step::Hold(place) => {
                format!("making a consumer that holds {}", settings.sources()[place].stream)
            }
            Step::Idle | Step::Finished => "nothing".to_owned(),
        }
    }
}

fn after(target: Target, settings: &Settings) -> Step {
    match target {
        Target::Output(place) if place + 1 < settings.cdc.output_prefixes.len() => {
            Step::Find(Target::Output(place + 1))
        }
        Target::Output(_) => Step::Find(Target::DeadLetters),
        Target::DeadLetters => Step::Inspect(Target::Source(0)),
        Target::Source(place) if place + 1 < settings.sources().len() => {
            Step::Inspect(Target::Source(place + 1))
        }
        Target::Source(_) if settings.cdc.enabled && settings.cdc.source.partitions > 1 => {
            Step::Inspect(Target::Split)
        }
        Target::Source(_) | Target::Split => Step::Inspect(Target::Leases),
        Target::Leases => Step::Inspect(Target::Positions),
        Target::Positions => Step::Finished,
    }
}

fn probe(target: Target, settings: &Settings) -> String {
    match target {
        Target::Output(place) => format!("{}.>", settings.cdc.output_prefixes[place]),
        _ => format!("{}.>", settings.cdc.dlq_subject),
    }
}

fn stream_config(target: Target, name: &str, cuts: u32, settings: &Settings) -> Value {
    let cdc = &settings.cdc;
    let plan = match target {
        Target::Output(place) => {
            let mut plan = cdc.output_stream.clone();
            let own = format!("{}.", cdc.output_prefixes[place]);
            plan.subjects.retain(|subject| subject.starts_with(&own));
            plan
        }
        Target::DeadLetters => cdc.dlq_stream.clone(),
        Target::Source(place) => settings.sources()[place].plan.clone(),
        Target::Split => StreamPlan { subjects: Vec::new(), ..cdc.source.plan.clone() },
        Target::Leases => bucket(&settings.lease.bucket, settings.lease.ttl),
        Target::Positions => bucket(&settings.lease.position_bucket, 0),
    };
    let mut config = json!({
        "name": name, "subjects": plan.subjects, "retention": "limits", "storage": "file",
        "discard": "old", "num_replicas": settings.nats.stream_replicas,
        "max_age": plan.age_max,
        "max_bytes": if plan.bytes_max > 0 { plan.bytes_max >> (3 * cuts).min(62) } else { -1 },
        "duplicate_window": plan.duplicate_window,
    });
    if target == Target::Split {
        let transforms: Vec<Value> =
            cdc.source.plan.subjects.iter().map(|s| transform(s, cdc.source.partitions)).collect();
        config["sources"] =
            json!([{ "name": cdc.source.stream, "subject_transforms": transforms }]);
        if let Some(fields) = config.as_object_mut() {
            fields.remove("subjects");
        }
    }
    if matches!(target, Target::Leases | Target::Positions) {
        config["discard"] = "new".into();
        config["max_msgs_per_subject"] = 1.into();
        config["allow_rollup_hdrs"] = true.into();
        config["deny_delete"] = true.into();
    }
    config
}

// `cdc.*.*` -> `p.{{partition(4,1)}}.cdc.{{wildcard(1)}}.{{wildcard(2)}}`. Where the company is no wildcard
// of its own, all goes to one partition, so that its order is kept.
fn transform(subject: &str, partitions: u16) -> Value {
    let company = company_token(subject);
    let (mut wildcards, mut partition) = (0, "0".to_owned());
    let tokens = subject.split('.').enumerate().map(|(place, token)| {
        wildcards += u16::from(token == "*");
        match token {
            "*" if company == Some(place) => {
                partition = format!("{{{{partition({partitions},{wildcards})}}}}");
            }
            _ if company == Some(place) => {
                partition = shard_of(token.as_bytes(), partitions).to_string();
            }
            _ => {}
        }
        if token == "*" { format!("{{{{wildcard({wildcards})}}}}") } else { token.to_owned() }
    });
    let tokens: Vec<String> = tokens.collect();
    json!({ "src": subject, "dest": format!("p.{partition}.{}", tokens.join(".")) })
}

// Subjects of the source that the splitting stream does not take, or not as we do.
fn missing_transforms(config: &Value, settings: &Settings) -> Vec<String> {
    let cdc = &settings.cdc;
    let sources = config["sources"].as_array().into_iter().flatten();
    let ours = sources.filter(|source| source["name"] == cdc.source.stream.as_str());
    let have: Vec<&Value> =
        ours.filter_map(|source| source["subject_transforms"].as_array()).flatten().collect();
    let subjects = cdc.source.plan.subjects.iter();
    subjects.filter(|s| !have.contains(&&transform(s, cdc.source.partitions))).cloned().collect()
}

fn bucket(name: &str, age_max: u64) -> StreamPlan {
    // The server wants the window within the age.
    let duplicate_window = if age_max == 0 { BUCKET_DUPLICATE_WINDOW } else { age_max };
    let subjects = vec![format!("$KV.{name}.>")];
    StreamPlan { name: name.to_owned(), subjects, age_max, bytes_max: -1, duplicate_window }
}

fn first_name(answer: &Value) -> Option<String> {
    answer["streams"].as_array()?.first()?.as_str().map(str::to_owned)
}

fn missing_subjects(config: &Value, wanted: &[String]) -> Vec<String> {
    let have: Vec<&str> =
        config["subjects"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    // A wanted wildcard is matched as if it were a literal token: `*` covers `*`, `>` covers all.
    let covers = |pattern: &str, subject: &str| {
        Pattern::new(pattern.to_owned()).is_ok_and(|pattern| pattern.matches(subject.as_bytes()))
    };
    let covered = |subject: &str| have.iter().any(|pattern| covers(pattern, subject));
    wanted.iter().filter(|subject| !covered(subject)).cloned().collect()
}

/// An API error as an operator wants to read it.
pub(super) fn api_error(error: &Value) -> String {
    let text = error["description"].as_str().unwrap_or("no description");
    format!("{text} (error {})", error["err_code"].as_u64().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_was_there_is_made_again_only_after_a_rest() {
        let settings = crate::pipeline::ingest::tests::settings();
        let target = Target::Source(0);
        let mut setup = Setup::new();
        assert!(setup.hindrance().is_some(), "nothing has been looked at");
        setup.step = Step::Inspect(target);
        assert!(!setup.is_just_gone(target, &settings), "it was never there");
        setup.check(target, &settings, &json!({ "subjects": [] })).unwrap();
        setup.forget();
        setup.step = Step::Inspect(target);
        assert!(setup.is_just_gone(target, &settings), "a new connection remembers it");
        setup.rested = Some(target);
        assert!(!setup.is_just_gone(target, &settings), "it may be made now");
        (setup.step, setup.trouble) = (Step::Finished, None);
        assert_eq!(setup.hindrance(), None);
        setup.trouble = Some("a permission is missing".to_owned());
        assert!(setup.hindrance().is_some(), "what the server complains of later is told as well");
    }

    #[test]
    fn a_split_hashes_the_company_and_keeps_the_subject() {
        for (subject, dest) in [
            ("cdc.*.*", "p.{{partition(4,1)}}.cdc.{{wildcard(1)}}.{{wildcard(2)}}"),
            (
                "sequin.changes.*.*.*.*",
                "p.{{partition(4,2)}}.sequin.changes.{{wildcard(1)}}.{{wildcard(2)}}.{{wildcard(3)}}.{{wildcard(4)}}",
            ),
            (
                "sequin.db.*.*.*",
                "p.{{partition(4,1)}}.sequin.db.{{wildcard(1)}}.{{wildcard(2)}}.{{wildcard(3)}}",
            ),
            // As the server hashes it: 175 % 4 (the test of `shard_of`).
            ("cdc.acme.*", "p.3.cdc.acme.{{wildcard(1)}}"),
            ("cdc.>", "p.0.cdc.>"),
        ] {
            assert_eq!(transform(subject, 4), json!({ "src": subject, "dest": dest }));
        }
    }
}
