//! A whole run against a running daisi: sender on this thread, observer on another, one report.
//! Invariant: an expectation is handed over before its event is sent, so the checker always knows it
//! when the event comes out.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::check::Checker;
use crate::client::ClientError;
use crate::ends::Told;
pub use crate::ends::cdc::Observe;
use crate::ends::cdc::{self, Watcher};
use crate::generate::{self, Generator, Profile};
use crate::report::Report;
use crate::send::{SendPlan, send_told};

/// Sends by `plan` what `profile` says, and observes until all has come, or for `drain` after the last
/// PubAck. `stop` ends the sending early; what was sent is still waited for.
///
/// # Errors
/// The sender's or the observer's connection, for longer than the plan allows.
pub fn run(
    plan: &SendPlan,
    profile: Profile,
    observe: &Observe,
    drain: Duration,
    stop: &AtomicBool,
) -> Result<Report, ClientError> {
    let mut generator = Generator::new(profile);
    let checker = Checker::new(generator.profile().rows(), generator.profile().companies);
    let watcher = Watcher::new(&plan.url, observe.clone(), checker)?.patient(plan.outage_max);
    let (mut teller, watcher) = cdc::open(watcher);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(move || watcher.watch(drain));
        let mut ordinal = 0;
        let before = |event: &generate::Event<'_>, planned_ns| {
            teller.tell(Told { event, planned_ns, ordinal });
            ordinal += 1;
        };
        let sent = send_told(plan, &mut generator, stop, before, || ());
        drop(teller);
        let seen = watcher.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let (sent, (checker, _)) = (sent?, seen?);
        Ok(Report::new(&sent, &checker))
    })
}

/// Set once by Ctrl-C or SIGTERM; a second one ends the process at once.
///
/// # Errors
/// The signal handlers could not be installed.
pub fn stop_sign() -> std::io::Result<std::sync::Arc<AtomicBool>> {
    let stop = std::sync::Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 130, stop.clone())?;
        signal_hook::flag::register(signal, stop.clone())?;
    }
    Ok(stop)
}

/// Whether the sign is set.
pub fn is_stopped(stop: &AtomicBool) -> bool {
    stop.load(Ordering::Relaxed)
}
