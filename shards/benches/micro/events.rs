//! Ingest events from the samples of their schemas, each with an id of its own, decoded once. Invariant: the
//! same events in every run.
#![expect(clippy::expect_used, reason = "the samples are part of this file's build")]

use shards::domain::ingest::batch::Item;
use shards::domain::ingest::{Body, Catalog, Event, Position};

pub(crate) const MESSAGE: &str =
    include_str!("../../../schemas/wa_events_stream/messages.upsert.v1/valid/sample.json");

/// The sample as most messages are: no campaign, and a phone number without symbols.
pub(crate) fn plain() -> String {
    let text = MESSAGE.replace("+62 811-00022", "6281100022");
    text.replace("\"is_campaign\": true", "\"is_campaign\": false")
}

/// Subjects and payloads.
pub(crate) struct Events {
    subjects: Vec<String>,
    payloads: Vec<String>,
}

/// One event, its company, and where it stands.
pub(crate) struct Decoded<'a> {
    company: &'a str,
    event: Event<'a>,
    position: Position<'a>,
}

/// A sample with this number in its ids.
pub(crate) fn numbered(sample: &str, number: usize) -> String {
    let text = sample.trim_end().replace("\"m-9\"", &format!("\"m-{number:05}\""));
    text.replace("\"chat-17\"", &format!("\"chat-{number:05}\""))
}

impl Events {
    /// `count` events made from a sample, of `companies` in turns.
    pub(crate) fn of(subject: &str, sample: &str, count: usize, companies: usize) -> Self {
        let subjects = (0..count).map(|n| format!("{subject}.Company{:05}", n % companies));
        let payloads = (0..count).map(|number| match count {
            1 => sample.to_owned(),
            _ => {
                let text = numbered(sample, number);
                text.replace("\"ACME\"", &format!("\"Company{:05}\"", number % companies))
            }
        });
        let payloads = payloads.map(|text| text.replace("\"ACME\"", "\"Company00000\"")).collect();
        Self { subjects: subjects.collect(), payloads }
    }

    /// What a batch takes. The bodies live as long as the program: a bench makes them once.
    pub(crate) fn decoded(self, catalog: &Catalog) -> Vec<Decoded<'_>> {
        let Self { subjects, payloads } = self;
        let pairs = subjects.into_iter().zip(payloads).zip(1..);
        let decode = |((subject, payload), number): ((String, String), u64)| {
            let (subject, payload): (&'static str, &'static str) = (subject.leak(), payload.leak());
            let body: &'static Body<'static> = Box::leak(Box::new(Body::of(payload.as_bytes())));
            let route = catalog.route(subject).expect("a subject of ours");
            let position = Position {
                stream: "wa_events_stream",
                stream_sequence: number,
                consumer: "daisi_ingest",
                consumer_sequence: number,
                subject,
                published_ns: 1_748_772_000_000_000_000 + number,
                ..Position::default()
            };
            let event = route.decode(body).expect("the sample is valid");
            Decoded { company: route.company(), event, position }
        };
        pairs.map(decode).collect()
    }
}

impl Decoded<'_> {
    pub(crate) fn item(&self) -> Item<'_> {
        Item {
            company: self.company,
            event: &self.event,
            position: &self.position,
            stream_created_ns: 1_748_000_000_000_000_000,
        }
    }
}
