//! NATS client protocol and JetStream on the wire: one module for a noun. Nothing here knows a socket,
//! a clock or the meaning of a payload.

pub mod auth;
pub mod decode;
pub mod encode;
pub mod headers;
pub mod info;
pub mod jetstream;
pub mod op;
pub mod subject;

pub use decode::{DecodeLimits, decode, decode_client};
pub use op::{ClientOp, Msg, ServerOp};
