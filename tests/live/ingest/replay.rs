//! A recorded trace, replayed into two worlds under the same salt: the same tables, but for times and places in
//! the stream.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use loadtest::generate::ingest::{Generator, Kind, Profile};
use loadtest::load::ensure_ingest;
use loadtest::send::{SendPlan, send};
use loadtest::trace::{Pace, RecordArgs, Renewal, Replay, ReplayPlan, record};

use crate::daisi::{Daisi, READY_MAX};
use crate::ingest::load::{COMPANIES, REALTIME, rows};
use crate::world::{Server, World};

on_the_installed_server!(a_trace_replayed_twice_makes_the_same_tables);

const COUNT: u64 = 2_000;

fn a_trace_replayed_twice_makes_the_same_tables(server: Server) {
    let source = World::new(server);
    let profile = Profile {
        subjects: REALTIME.to_vec(),
        companies: COMPANIES.map(str::to_owned).to_vec(),
        // What has no time of its own takes the server's, which is another each time.
        quirks: 0.0,
        ..Profile::default()
    };
    ensure_ingest(&mut source.client(), &Kind::ALL).expect("streams");
    let mut generator = Generator::new(profile).expect("a profile");
    let go_on = AtomicBool::new(false);
    let plan = SendPlan::new(source.stack.nats.url(), COUNT);
    send(&plan, &mut generator, &go_on, |_| ()).expect("events are published");
    let file = source.new_folder("trace").join("realtime.trace");
    let order = RecordArgs {
        file: file.clone(),
        nats_url: source.stack.nats.url(),
        stream: Some("wa_events_stream".to_owned()),
        subject: None,
        from_seq: None,
        from_time: None,
        last: None,
        until_now: true,
        duration: None,
        count: None,
        quiet: true,
    };
    record(&order, &go_on).expect("a trace");
    let tables = ["a", "a", "b"].map(|salt| {
        let world = World::ingesting(server);
        let daisi = Daisi::spawn(&world, &[]);
        daisi.ready(READY_MAX);
        let renewal = Renewal { salt: Some(salt.to_owned()), ..Renewal::default() };
        let plan = ReplayPlan { pace: Pace::Max, renewal, ..ReplayPlan::default() };
        let mut replay = Replay::open(&file, plan).expect("a trace");
        let plan = SendPlan::new(world.stack.nats.url(), COUNT);
        let sent = send(&plan, &mut replay, &go_on, |_| ()).expect("events are published");
        assert_eq!(sent.acked, COUNT, "all of the trace");
        daisi.ingested(COUNT, Duration::from_secs(60));
        rows(&world, "postgres", false)
    });
    let [first, again, other] = &tables;
    assert!(first.len() > 500, "{} rows", first.len());
    assert_eq!(first, again, "the same salt");
    assert_eq!(first.len(), other.len(), "another salt, as many rows");
    assert_ne!(first, other, "another salt, other ids");
}
