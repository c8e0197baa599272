//! Local stack, event generator, open-loop sender and checker.
