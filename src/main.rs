//! Arguments -> Plan -> Process::run -> exit code.

fn main() {}
