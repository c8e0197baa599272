//! Many companies and several shards: all arrive in order, within the memory that was promised
//! (DESIGN.md section 3 and promise 8).

use std::time::Duration;

use loadtest::generate::Profile;

use crate::change::message;
use crate::daisi::{Daisi, READY_MAX};
use crate::traffic::{Traffic, create_source, mixed};
use crate::world::{OUTPUT, Server, World, eventually, say};

on_the_installed_server!(ten_thousand_companies_fit_and_all_arrive);

on_each_server!(two_shards_keep_the_order_of_each_company);

const COMPANIES: u32 = 10_000;
const MEMORY_MAX_KIB: u64 = 256 << 10;
/// Ids that the window of a shard holds by default.
const WINDOW: u64 = 1_000_000;

fn ten_thousand_companies_fit_and_all_arrive(server: Server) {
    let world = World::new(server);
    create_source(&world);
    let daisi = Daisi::spawn(&world, &[]);
    daisi.ready(READY_MAX);
    let mut client = world.client();
    for company in 0..COMPANIES {
        let (subject, body) = message(&format!("c{company}"), "M1", 1).sent();
        client.publish(&subject, None, &body).unwrap();
    }
    client.barrier().unwrap();
    let one_each = Duration::from_secs(60);
    eventually("one event of each company", one_each, || world.count(OUTPUT) >= COMPANIES.into());
    let companies = daisi.metrics().sum("daisi_shard_companies", &[]);
    assert!(companies >= COMPANIES.into(), "{companies} companies held");
    let before = daisi.memory_kib();
    // x^13.29 puts half of all draws into the first ten thousandth: ln 10,000 / ln 2.
    let profile =
        Profile { companies: COMPANIES, agents: 1, chats: 2, skew: 13.29, ..Profile::clean() };
    const COUNT: u64 = 20_000;
    let report = Traffic::start(&world, profile, COUNT, 0.0, Duration::from_secs(60));
    let report = report.report();
    let outcomes = &report.outcomes;
    // The checker also sees the ten thousand that it did not send.
    assert_eq!((outcomes.lost, outcomes.duplicated, outcomes.out_of_order), (0, 0, 0), "{report}");
    let after = daisi.memory_kib();
    let full = after + after.saturating_sub(before) * (WINDOW - COUNT) / COUNT;
    say(&format!(
        "{COMPANIES} companies: {} MiB, {} MiB after {COUNT} more events, at most {} MiB with a \
         full window of {WINDOW}",
        before >> 10,
        after >> 10,
        full >> 10
    ));
    assert!(after <= MEMORY_MAX_KIB, "{after} KiB");
}

fn two_shards_keep_the_order_of_each_company(server: Server) {
    let world = World::new(server);
    let daisi = Daisi::spawn(&world, &[("shards", "2")]);
    daisi.ready(READY_MAX);
    let profile = Profile { companies: 64, ..mixed(50) };
    Traffic::start(&world, profile, 8_000, 0.0, Duration::from_secs(40)).clean();
    let metrics = daisi.metrics();
    for shard in ["0", "1"] {
        let pulled = metrics.sum("daisi_cdc_events_pulled_total", &[("shard", shard)]);
        assert!(pulled > 1_000, "shard {shard} owns companies, and had {pulled} events");
    }
    eventually("the books balance", Duration::from_secs(10), || {
        let metrics = daisi.metrics();
        metrics.in_flight() == 0 && metrics.residual() == 0.0
    });
}
