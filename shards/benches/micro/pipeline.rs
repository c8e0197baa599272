//! What does an event cost from delivery to ack, without IO? Delivery, transform, claim and its reply,
//! publish, PubAck, done mark and its reply, ack; in batches as they come at high and at low load.

use crate::measure::{Ask, Case};
use crate::script::Script;

/// Runs its cases.
pub(crate) fn run(ask: &Ask) {
    let mut witness = Script::new(8, 1_000_000);
    (0..64).for_each(|_| witness.batch(64));
    println!("pipeline: {} events, output hash {:016x}", witness.acked, witness.output_hash());
    let [mut large, mut small, mut single] = [(); 3].map(|()| Script::new(8, 1_000_000));
    ask.run(vec![
        Case {
            name: "pipeline: whole event, batches of 230 (one read)",
            events: 16 * 230,
            round: Box::new(|| (0..16).for_each(|_| large.batch(230))),
        },
        Case {
            name: "pipeline: whole event, batches of 16",
            events: 64 * 16,
            round: Box::new(|| (0..64).for_each(|_| small.batch(16))),
        },
        Case {
            name: "pipeline: whole event, one by one",
            events: 512,
            round: Box::new(|| (0..512).for_each(|_| single.batch(1))),
        },
    ]);
}
