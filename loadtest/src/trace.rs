//! Traces: events of a live stream or subject in a file, and from there to a sender again.
//! Modules: `format` (the file, to the byte), `write` and `read` (it), `record` and `show` (commands that
//! make one and tell what is in it), `subject`, `json`, `time`, `rewrite` and `replay` (from a recorded event
//! to one that is sent), `publish` (the command).

mod format;
mod json;
mod publish;
mod read;
mod record;
mod replay;
mod rewrite;
mod show;
mod subject;
mod time;
mod write;

pub use format::{Preface, Record, Totals, TraceError};
pub use publish::{ReplayArgs, ReplayPlanArgs, Shift, replay};
pub use read::{End, Reader};
pub use record::{RecordArgs, record};
pub use replay::{Account, Pace, Replay, ReplayEvent, ReplayPlan};
pub use rewrite::Renewal;
pub use show::{ShowArgs, show};
pub use subject::{Parts, Shape};
pub use write::Writer;
