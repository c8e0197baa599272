//! The other end of a measurement: makes events, sends them, and checks what came out. Invariant: each
//! event carries its number and its planned send time in the row, so any contender that passes the row on,
//! parsed or not, can be checked for loss, doubles and order.

mod drain;
mod make;
mod paced;

pub use drain::{preload, reset, verify, watch};
pub use make::{Maker, Mark, Shape};
pub use paced::{Pace, paced};
