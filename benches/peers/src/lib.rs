//! The jobs of the stages cdc and ingest written the ordinary way: async-nats, tokio, redis, tokio-postgres and
//! serde_json. It is what daisi is measured against, so it is honest code: what a good team would ship, tuned
//! on the same machine. Follows the contracts of the stages; where it does less than daisi, the module says so.

pub mod bus;
pub mod feed;
pub mod ingest;
pub mod transform;
