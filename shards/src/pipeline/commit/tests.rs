//! Claims about what is tried next, without a database.
