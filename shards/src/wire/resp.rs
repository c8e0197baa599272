//! RESP2: the few Redis commands in use.
