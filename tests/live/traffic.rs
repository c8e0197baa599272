//! Traffic of the load test's generator through a world, and the verdict of its checker. Invariant: the
//! verdict is read from the output stream itself, so nothing that happened on the way is missed.

use std::sync::atomic::AtomicBool;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use loadtest::client::{Client, ClientError, StreamSpec};
use loadtest::generate::Profile;
use loadtest::report::Report;
use loadtest::run::{Observe, run};
use loadtest::send::SendPlan;

use crate::world::{OUTPUT, SOURCE, World};

/// Traffic under way on a thread of its own.
#[derive(Debug)]
pub struct Traffic(JoinHandle<Result<Report, ClientError>>);

impl Traffic {
    /// Sends `count` events of `profile`, `rate` a second (0: as fast as it goes), and watches the output
    /// stream until all have come, or for `drain` after the last was stored.
    pub fn start(world: &World, profile: Profile, count: u64, rate: f64, drain: Duration) -> Self {
        let plan = SendPlan { rate, window: 256, ..SendPlan::new(world.stack.nats.url(), count) };
        let thread = Builder::new().name("traffic".to_owned()).spawn(move || {
            let observe = Observe::Stream { name: OUTPUT.to_owned() };
            run(&plan, profile, &observe, drain, &AtomicBool::new(false))
        });
        Self(thread.expect("a thread"))
    }

    /// Waits for its end.
    #[track_caller]
    pub fn report(self) -> Report {
        self.0.join().expect("traffic does not panic").expect("traffic gets through")
    }

    /// Waits for its end: nothing lost, nothing twice, nothing changed, order kept.
    #[track_caller]
    pub fn clean(self) -> Report {
        let report = self.report();
        assert!(report.outcomes.is_clean(), "{report}\n{:#?}", report.examples);
        assert!(report.outcomes.expected > 0, "{report}");
        report
    }
}

/// Few companies and rows, so that order has something to be kept; with a little of every trouble.
pub fn mixed(seed: u64) -> Profile {
    Profile { seed, companies: 8, agents: 2, chats: 4, bad: 0.005, ..Profile::default() }
}

/// The source stream as daisi would make it, before there is a daisi.
pub fn create_source(world: &World) {
    let mut client: Client = world.client();
    let duplicate_window = Duration::from_secs(120);
    let spec = StreamSpec { name: SOURCE, subjects: &["cdc.*.*"], duplicate_window };
    client.create_stream(spec).expect("a stream");
}
