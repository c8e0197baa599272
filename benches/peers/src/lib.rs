//! The CDC job written the ordinary way: async-nats, tokio, redis and serde_json. It is what daisi is
//! measured against, so it is honest code: what a good team would ship, tuned on the same machine.
//! Follows the contract of the cdc stage; where it does less than daisi, the module says so.

pub mod bus;
pub mod feed;
pub mod transform;
