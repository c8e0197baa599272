//! The process: all that exists once.
