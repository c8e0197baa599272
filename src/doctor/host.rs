//! What this machine lacks. Facts come from `crate::host`; io_uring is asked for by really setting up a small
//! ring, as a sysctl, a seccomp profile or a security module may each forbid it. Source of the bounds:
//! io_uring features in use need Linux 5.8; glommio locks 512 KiB.

use std::io::ErrorKind;
use std::path::Path;

use super::report::{Area, Finding};
use super::tuning;
use crate::config::plan::Plan;
use crate::host::{self, Cores, Limit};

const KERNEL_MIN: (u32, u32) = (5, 8);
/// Least locked memory, bytes: what the rings of one shard need.
const MEMLOCK_MIN: u64 = 512 << 10;
/// Open files of a process with a few connections a shard, and its rings.
const FILES_MIN: u64 = 4096;
/// Entries of the ring that is tried: the smallest that says anything.
const RING_ENTRIES: u32 = 8;

pub(super) fn examine(plan: &Plan) -> Vec<Finding> {
    let mut findings = vec![kernel(host::kernel()), ring(probe_ring())];
    findings.push(memlock(host::limit("Max locked memory")));
    findings.push(files(host::limit("Max open files")));
    findings.push(cpu(&host::cpu_features_missing()));
    let available = Cores::read();
    findings.extend(cores(&available, &plan.shard_cores));
    findings.extend(tuning::examine(Path::new("/"), plan, &available));
    findings
}

fn kernel(seen: Option<(String, (u32, u32))>) -> Finding {
    let remedy = "run on Linux 5.8 or newer";
    match seen {
        Some((release, version)) if version >= KERNEL_MIN => {
            Finding::ok(Area::Host, "kernel", release)
        }
        Some((release, _)) => Finding::fail(Area::Host, "kernel", release, remedy),
        None => Finding::fail(Area::Host, "kernel", "release is not readable", remedy),
    }
}

/// Sets up a small ring, asks which operations it knows, and enters it: the three calls daisi needs.
///
/// # Errors
/// That of the first call the kernel refused.
pub(super) fn probe_ring() -> std::io::Result<()> {
    let ring = io_uring::IoUring::new(RING_ENTRIES)?;
    ring.submitter().register_probe(&mut io_uring::Probe::new())?;
    ring.submitter().submit().map(|_| ())
}

fn ring(probed: std::io::Result<()>) -> Finding {
    let Err(error) = probed else { return Finding::ok(Area::Host, "io_uring", "allowed") };
    let disabled = host::read_trimmed("/proc/sys/kernel/io_uring_disabled");
    let remedy = match (disabled.as_deref(), error.kind()) {
        (Some("1" | "2"), _) => "set sysctl kernel.io_uring_disabled = 0",
        (_, ErrorKind::OutOfMemory) => {
            "raise the memlock limit (ulimit -l, LimitMEMLOCK=, or the pod's)"
        }
        (_, ErrorKind::Unsupported) => "use a kernel with CONFIG_IO_URING",
        _ => {
            "a seccomp profile forbids it, as container runtimes do by default: allow io_uring_setup, \
             io_uring_enter and io_uring_register"
        }
    };
    Finding::fail(Area::Host, "io_uring", format!("refused: {error}"), remedy)
}

fn memlock(limit: Option<Limit>) -> Finding {
    let remedy = "raise it to 512 KiB or more: ulimit -l, LimitMEMLOCK= in systemd, daisi tune --only limits for logins";
    match limit {
        Some(Limit::Unlimited) => Finding::ok(Area::Host, "memlock", "unlimited"),
        Some(Limit::Of(bytes)) if bytes >= MEMLOCK_MIN => {
            Finding::ok(Area::Host, "memlock", format!("{} KiB", bytes >> 10))
        }
        Some(Limit::Of(bytes)) => {
            Finding::fail(Area::Host, "memlock", format!("{} KiB", bytes >> 10), remedy)
        }
        None => Finding::warn(Area::Host, "memlock", "not readable", remedy),
    }
}

fn files(limit: Option<Limit>) -> Finding {
    let remedy = "raise it to 4096 or more: ulimit -n, LimitNOFILE= in systemd, daisi tune --only limits for logins";
    match limit {
        Some(Limit::Unlimited) => Finding::ok(Area::Host, "open files", "unlimited"),
        Some(Limit::Of(count)) if count >= FILES_MIN => {
            Finding::ok(Area::Host, "open files", count.to_string())
        }
        Some(Limit::Of(count)) => {
            Finding::warn(Area::Host, "open files", count.to_string(), remedy)
        }
        None => Finding::warn(Area::Host, "open files", "not readable", remedy),
    }
}

fn cpu(missing: &[&str]) -> Finding {
    if missing.is_empty() {
        return Finding::ok(Area::Host, "cpu", "x86-64-v3, or an architecture without levels");
    }
    let remedy = "run on x86-64-v3 (Haswell 2013, Excavator 2015, or newer)";
    Finding::fail(Area::Host, "cpu", format!("lacks {}", missing.join(", ")), remedy)
}

fn cores(cores: &Cores, shard_cores: &[usize]) -> Vec<Finding> {
    let quota = cores.quota.map_or_else(|| "none".to_owned(), |cpus| format!("{cpus} CPUs"));
    let (logical, physical) = (cores.logical(), cores.groups.len());
    let fact =
        format!("{logical} CPUs on {physical} cores, quota {quota}; shards on {shard_cores:?}");
    let mut findings = vec![Finding::ok(Area::Host, "cores", fact)];
    #[expect(clippy::cast_precision_loss, reason = "a number of CPUs")]
    let needed = (shard_cores.len() + 1) as f64;
    if cores.quota.is_some_and(|quota| quota < needed) {
        let fact =
            format!("{} shards and the control thread under a quota of {quota}", shard_cores.len());
        let remedy =
            "raise the CPU limit, or lower `shards`: a throttled shard stands still for tens of ms";
        findings.push(Finding::warn(Area::Host, "quota", fact, remedy));
    }
    if logical <= shard_cores.len() {
        let fact = "every CPU has a shard; the control thread shares one";
        findings.push(Finding::warn(Area::Host, "cores", fact, "leave one CPU without a shard"));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::report::Level;
    use super::*;

    #[test]
    fn kernels_and_limits_are_judged_at_their_bounds() {
        let kernel_level = |version| kernel(Some(("x".into(), version))).level;
        assert_eq!(kernel_level((5, 7)), Level::Fail);
        assert_eq!(kernel_level((5, 8)), Level::Ok);
        assert_eq!(memlock(Some(Limit::Of(MEMLOCK_MIN - 1))).level, Level::Fail);
        assert_eq!(memlock(Some(Limit::Of(MEMLOCK_MIN))).level, Level::Ok);
        assert_eq!(files(Some(Limit::Of(1024))).level, Level::Warn);
        assert_eq!(cpu(&["avx2"]).level, Level::Fail);
    }

    #[test]
    fn a_refused_ring_names_the_likely_cause() {
        let finding = ring(Err(std::io::Error::from(ErrorKind::OutOfMemory)));
        assert_eq!(finding.level, Level::Fail);
        assert!(
            finding
                .remedy
                .is_some_and(|remedy| remedy.contains("memlock") || remedy.contains("sysctl"))
        );
    }

    #[test]
    fn a_quota_below_the_shards_warns() {
        let cores_of = |quota| Cores { groups: vec![vec![0], vec![1], vec![2]], quota };
        let worst = |quota, shards: &[usize]| {
            cores(&cores_of(quota), shards).iter().map(|finding| finding.level).max()
        };
        assert_eq!(worst(None, &[1, 2]), Some(Level::Ok));
        assert_eq!(worst(Some(2.0), &[1, 2]), Some(Level::Warn));
        assert_eq!(worst(None, &[0, 1, 2]), Some(Level::Warn));
    }
}
