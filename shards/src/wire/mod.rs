//! Codecs and protocol state of everything daisi speaks. Sans-IO: bytes in, values out; no sockets,
//! no clocks, no async, and nothing of the domain.

pub mod nats;
pub mod resp;
