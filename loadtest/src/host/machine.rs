//! On what a result was measured: without it a figure means nothing next week.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Facts of the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Model name of the CPU.
    pub cpu: String,
    /// Cores this process may use.
    pub cores: usize,
    /// Release of the kernel.
    pub kernel: String,
    /// One-minute load before the run: above 0.5 somebody else is at work.
    pub load_at_start: String,
}

impl Machine {
    /// Looks once, at the start of a run. What cannot be read is `unknown`, which is no reason to stop.
    pub fn look() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let or_unknown = |text: &str| match text.trim() {
            "" => "unknown".to_owned(),
            text => text.to_owned(),
        };
        let cpuinfo = read("/proc/cpuinfo");
        let cpu =
            cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split(':').nth(1));
        Self {
            cpu: or_unknown(cpu.unwrap_or_default()),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            kernel: or_unknown(&read("/proc/sys/kernel/osrelease")),
            load_at_start: load(),
        }
    }
}

/// Milliseconds since 1970.
pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64)
}

/// One-minute load average.
pub fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().filter(|load| !load.is_empty()).unwrap_or("unknown").to_owned()
}

#[cfg(test)]
mod tests {
    use super::Machine;

    #[test]
    fn the_machine_has_cores_and_a_kernel() {
        let machine = Machine::look();
        assert!(machine.cores >= 1);
        assert!(machine.kernel.starts_with(|c: char| c.is_ascii_digit()), "{}", machine.kernel);
        assert!(machine.load_at_start.parse::<f64>().is_ok(), "{}", machine.load_at_start);
    }
}
