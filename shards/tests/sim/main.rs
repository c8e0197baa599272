//! Deterministic simulation: the pipeline against simulated peers, one seed, one virtual clock.

mod peers;
