//! Child processes and what the kernel knows of them. Invariant: no child outlives its starter, however that
//! ends: a guard kills on drop, and `setpriv --pdeathsig KILL` kills when the starter is killed.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::HostError;
use crate::stack::spawn_kept;

/// Ticks a second of `/proc/<pid>/stat`; a constant of Linux on x86-64 (`USER_HZ`).
const TICKS_PER_SECOND: u64 = 100;

/// A running child, killed when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
}

impl Process {
    /// Starts `command`; its standard output is piped or dropped, its standard error is ours.
    ///
    /// # Errors
    /// There is no `setpriv`, or it could not be started. A `command` that is not there ends at once instead.
    pub fn spawn(name: &str, command: &[String], stdout: Stdio) -> Result<Self, HostError> {
        let mut setpriv = Command::new("setpriv");
        setpriv.args(["--pdeathsig", "KILL", "--"]).args(command);
        setpriv.stdin(Stdio::null()).stdout(stdout);
        let doing = format!("start {name} through setpriv");
        let child = spawn_kept(setpriv).map_err(HostError::io(doing))?;
        Ok(Self { name: name.to_owned(), child })
    }

    /// The child itself, for its pipes and its end.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Fails once the process has ended.
    ///
    /// # Errors
    /// [`HostError::Ended`].
    pub fn assert_running(&mut self) -> Result<(), HostError> {
        let doing = format!("wait for {}", self.name);
        match self.child.try_wait().map_err(HostError::io(doing))? {
            None => Ok(()),
            Some(status) => {
                Err(HostError::Ended { name: self.name.clone(), status: status.to_string() })
            }
        }
    }

    /// User and system time of all threads so far, kernel workers of io_uring included. Grain: 10 ms.
    ///
    /// # Errors
    /// It is gone.
    pub fn cpu(&self) -> Result<Duration, HostError> {
        cpu_of(self.pid())
    }

    /// Most memory resident so far, in KiB.
    ///
    /// # Errors
    /// It is gone.
    pub fn rss_kib_max(&self) -> Result<u64, HostError> {
        rss_kib_max_of(self.pid())
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
///
/// # Errors
/// It is gone.
pub fn cpu_of(pid: u32) -> Result<Duration, HostError> {
    Ok(from_ticks(own_ticks(pid)?))
}

/// The same of a process with its children, those that have ended included: a server of many processes.
///
/// # Errors
/// It is gone.
pub fn cpu_with_children_of(pid: u32) -> Result<Duration, HostError> {
    let children = children_of(pid)?;
    let path = format!("/proc/{pid}/stat");
    let stat = read(&path)?;
    let ended = ticks(&stat, 15).ok_or(HostError::Unreadable { path, what: "times" })?;
    let mut sum = own_ticks(pid)? + ended;
    for child in children {
        // One that ends in between is counted with the ended ones at the next look.
        sum += own_ticks(child).unwrap_or_default();
    }
    Ok(from_ticks(sum))
}

/// Most memory resident so far, in KiB.
///
/// # Errors
/// It is gone.
pub fn rss_kib_max_of(pid: u32) -> Result<u64, HostError> {
    let path = format!("/proc/{pid}/status");
    let status = read(&path)?;
    status_kib(&status, "VmHWM:").ok_or(HostError::Unreadable { path, what: "VmHWM" })
}

/// Memory resident now, in KiB, of a process with its children. What they share (the buffers of PostgreSQL, the
/// binary) is counted once, as much as the one of them that has most of it.
///
/// # Errors
/// It is gone.
pub fn rss_kib_with_children_of(pid: u32) -> Result<u64, HostError> {
    let (mut own, mut shared) = rss_parts(pid)?;
    for child in children_of(pid)? {
        let (more_own, more_shared) = rss_parts(child).unwrap_or_default();
        own += more_own;
        shared = shared.max(more_shared);
    }
    Ok(own + shared)
}

/// User and system time of this process so far, ended threads included, to the nanosecond.
pub fn own_cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// A thread of this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreadCpu {
    /// Its name, at most 15 bytes of it.
    pub name: String,
    /// Time on a core so far.
    pub cpu: Duration,
}

/// The threads of this process that run now, by number.
///
/// # Errors
/// `/proc` is not there.
pub fn own_threads() -> Result<BTreeMap<u32, ThreadCpu>, HostError> {
    let folder = "/proc/self/task";
    let entries = fs::read_dir(folder).map_err(HostError::io(format!("read {folder}")))?;
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    // A thread may end between the two looks.
    Ok(numbers.filter_map(|number| Some((number, thread(number)?))).collect())
}

fn thread(number: u32) -> Option<ThreadCpu> {
    let stat = fs::read_to_string(format!("/proc/self/task/{number}/stat")).ok()?;
    let (_, name) = stat.rsplit_once(')')?.0.split_once('(')?;
    // Nanoseconds where the kernel keeps them; its ticks of 10 ms elsewhere.
    let exact = fs::read_to_string(format!("/proc/self/task/{number}/schedstat")).ok();
    let exact = exact.and_then(|text| text.split_ascii_whitespace().next()?.parse().ok());
    let cpu = match exact {
        Some(ns) => Duration::from_nanos(ns),
        None => from_ticks(ticks(&stat, 13)?),
    };
    Some(ThreadCpu { name: name.to_owned(), cpu })
}

fn read(path: &str) -> Result<String, HostError> {
    fs::read_to_string(path).map_err(HostError::io(format!("read {path}")))
}

/// Children of the main thread, which is the one that forks in every server we know.
fn children_of(pid: u32) -> Result<Vec<u32>, HostError> {
    let children = read(&format!("/proc/{pid}/task/{pid}/children"))?;
    Ok(children.split_ascii_whitespace().filter_map(|child| child.parse().ok()).collect())
}

/// Memory of its own and memory that others may share, in KiB.
fn rss_parts(pid: u32) -> Result<(u64, u64), HostError> {
    let path = format!("/proc/{pid}/status");
    let status = read(&path)?;
    let own =
        status_kib(&status, "RssAnon:").ok_or(HostError::Unreadable { path, what: "RssAnon" });
    let shared = |name| status_kib(&status, name).unwrap_or_default();
    Ok((own?, shared("RssFile:") + shared("RssShmem:")))
}

fn status_kib(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// Fields 14 and 15 (proc(5)).
fn own_ticks(pid: u32) -> Result<u64, HostError> {
    let path = format!("/proc/{pid}/stat");
    let stat = read(&path)?;
    ticks(&stat, 13).ok_or(HostError::Unreadable { path, what: "times" })
}

fn from_ticks(ticks: u64) -> Duration {
    Duration::from_micros(ticks * 1_000_000 / TICKS_PER_SECOND)
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
        assert_eq!(ticks(stat, 13), Some(366));
        assert_eq!(ticks("7 (a) S 1", 13), None);
    }

    #[test]
    fn a_busy_child_is_charged_and_dies_with_its_guard() {
        let busy = ["sh", "-c", "while :; do :; done"].map(str::to_owned);
        let mut process = Process::spawn("busy", &busy, Stdio::null()).unwrap();
        std::thread::sleep(Duration::from_millis(300));
        process.assert_running().unwrap();
        assert!(process.cpu().unwrap() >= Duration::from_millis(30));
        assert!(process.rss_kib_max().unwrap() > 0);
        let pid = process.pid();
        drop(process);
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    }

    #[test]
    fn children_are_charged_to_their_parent() {
        let busy = ["sh", "-c", "sh -c 'while :; do :; done' & wait"].map(str::to_owned);
        let mut process = Process::spawn("parent", &busy, Stdio::null()).unwrap();
        std::thread::sleep(Duration::from_millis(400));
        process.assert_running().unwrap();
        let with_children = cpu_with_children_of(process.pid()).unwrap();
        assert!(with_children >= process.cpu().unwrap() + Duration::from_millis(30));
        let one = rss_parts(process.pid()).unwrap();
        assert!(rss_kib_with_children_of(process.pid()).unwrap() > one.0 + one.1);
        let children = children_of(process.pid()).unwrap();
        assert_eq!(children.len(), 1);
        // It is not ours to wait for, so the guard cannot know it.
        drop(process);
        let child = rustix::process::Pid::from_raw(children[0] as i32).unwrap();
        rustix::process::kill_process(child, rustix::process::Signal::KILL).unwrap();
    }

    #[test]
    fn own_threads_are_told_by_name() {
        let before = own_cpu();
        let busy = std::thread::Builder::new().name("busy (own)".into());
        let (done, wait) = std::sync::mpsc::channel::<()>();
        let thread = busy
            .spawn(move || {
                let start = std::time::Instant::now();
                while start.elapsed() < Duration::from_millis(200) {}
                let _ = wait.recv();
            })
            .unwrap();
        std::thread::sleep(Duration::from_millis(400));
        let threads = own_threads().unwrap();
        let busy = threads.values().find(|thread| thread.name == "busy (own)").unwrap();
        assert!(busy.cpu >= Duration::from_millis(20), "{busy:?}");
        assert!(own_cpu() - before >= busy.cpu.mul_f64(0.9));
        drop(done);
        thread.join().unwrap();
    }
}
