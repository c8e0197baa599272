//! Child processes and what the kernel knows of them. Invariant: no child outlives the harness, however
//! that ends: a guard kills on drop, and `setpriv --pdeathsig KILL` kills when the harness is killed.
//! That signal is bound to the thread that spawned, so everything is spawned on the main thread.

use std::{
    fs,
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::error::BenchError;

/// Ticks a second of `/proc/<pid>/stat`; a constant of Linux on x86-64 (`USER_HZ`).
const TICKS_PER_SECOND: u64 = 100;

/// A running child, killed when dropped.
pub(crate) struct Process {
    name: String,
    child: Child,
}

impl Process {
    /// Starts `command`; its standard output is piped or dropped, its standard error is ours.
    pub(crate) fn spawn(name: &str, command: &[String], stdout: Stdio) -> Result<Self, BenchError> {
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .args(command)
            .stdin(Stdio::null())
            .stdout(stdout)
            .spawn()
            .map_err(BenchError::io(format!("start {name} through setpriv")))?;
        Ok(Self { name: name.to_owned(), child })
    }

    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Fails once the process has ended, which a contender must not do by itself.
    pub(crate) fn assert_running(&mut self) -> Result<(), BenchError> {
        match self.child.try_wait().map_err(BenchError::io(format!("wait for {}", self.name)))? {
            None => Ok(()),
            Some(status) => Err(BenchError::ContenderEnded {
                name: self.name.clone(),
                status: status.to_string(),
            }),
        }
    }

    /// User and system time of all threads so far, kernel workers of io_uring included. Grain: 10 ms.
    pub(crate) fn cpu(&self) -> Result<Duration, BenchError> {
        cpu_of(self.child.id())
    }

    /// Most memory resident so far, in KiB.
    pub(crate) fn rss_kib_max(&self) -> Result<u64, BenchError> {
        let path = format!("/proc/{}/status", self.child.id());
        let status = fs::read_to_string(&path).map_err(BenchError::io(format!("read {path}")))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse().ok())
            .ok_or_else(|| BenchError::unreadable(&path, &"no VmHWM"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if the process is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// User and system time of a process so far, all its threads. Grain: 10 ms.
pub(crate) fn cpu_of(pid: u32) -> Result<Duration, BenchError> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).map_err(BenchError::io(format!("read {path}")))?;
    let ticks = cpu_ticks(&stat).ok_or_else(|| BenchError::unreadable(&path, &"no times"))?;
    Ok(Duration::from_micros(ticks * 1_000_000 / TICKS_PER_SECOND))
}

/// The same of a process with its children, those that have ended included: a server of many processes.
pub(crate) fn cpu_with_children_of(pid: u32) -> Result<Duration, BenchError> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let children = fs::read_to_string(&path).map_err(BenchError::io(format!("read {path}")))?;
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).map_err(BenchError::io(format!("read {path}")))?;
    let ended = ticks(&stat, 15).ok_or_else(|| BenchError::unreadable(&path, &"no times"))?;
    let mut sum = cpu_of(pid)? + Duration::from_micros(ended * 1_000_000 / TICKS_PER_SECOND);
    for child in children.split_ascii_whitespace().filter_map(|child| child.parse().ok()) {
        // One that ends in between is counted with the ended ones at the next look.
        sum += cpu_of(child).unwrap_or_default();
    }
    Ok(sum)
}

/// Fields 14 and 15 (proc(5)).
fn cpu_ticks(stat: &str) -> Option<u64> {
    ticks(stat, 13)
}

/// User and system time from the field behind number `at`, counted behind the name, which may hold blanks and
/// parentheses.
fn ticks(stat: &str, at: usize) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(at - 2);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_a_name_with_blanks_and_parentheses() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194304 100 0 0 0 321 45 0 0 20 0 2 0 99 1 2 3";
        assert_eq!(cpu_ticks(stat), Some(366));
        assert_eq!(cpu_ticks("7 (a) S 1"), None);
    }

    #[test]
    fn a_busy_child_is_charged_and_dies_with_its_guard() {
        let busy = ["sh", "-c", "while :; do :; done"].map(str::to_owned);
        let mut process = Process::spawn("busy", &busy, Stdio::null()).unwrap();
        std::thread::sleep(Duration::from_millis(300));
        process.assert_running().unwrap();
        assert!(process.cpu().unwrap() >= Duration::from_millis(30));
        assert!(process.rss_kib_max().unwrap() > 0);
        let pid = process.child().id();
        drop(process);
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    }
}
