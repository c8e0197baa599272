//! What a measured run leaves behind: one JSON file, from which every report, comparison and check is made.
//! Invariant: all that a report shows stands in the file; nothing is measured again to draw it.

mod model;

pub use crate::host::Machine;
pub use model::{
    Counts, Distribution, End, Harness, Load, ProcessUse, Results, Second, SecondEnd, Sender,
    Spread,
};
