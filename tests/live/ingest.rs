//! The ingest stage on real servers: from NATS to rows, and what becomes of what has none (contract ingest.md).
//! Modules: `rows` (the ten kinds, companies, refusals), `crash` (kill -9 under load), `away` (PostgreSQL gone,
//! slow or refusing), `letters` (retries), `load` (traffic of the generator and what it must come to), `acceptance`
//! (the contract's list, id by id).

mod acceptance;
mod away;
mod crash;
mod letters;
mod load;
mod replay;
mod rows;
