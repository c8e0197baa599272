//! What this machine gives the process: CPUs, quota, limits, kernel. Read from /proc, /sys and CPUID; pure
//! parsing functions below, so that tests need no other machine. Sources: proc(5), cgroups(7), sysfs topology.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// CPUs that Linux can number.
const CPUS_MAX: usize = 8192;

/// CPUs this process may use, and how they share physical cores.
#[derive(Clone, Debug, PartialEq)]
pub struct Cores {
    /// CPUs of the process's affinity mask, one group a physical core, groups and members ascending.
    pub groups: Vec<Vec<usize>>,
    /// CPU time the control group allows, in CPUs; `None` without a quota.
    pub quota: Option<f64>,
}

impl Cores {
    /// Reads mask, topology and quota of this process.
    #[must_use]
    pub fn read() -> Self {
        let ids = core_affinity::get_core_ids().unwrap_or_default();
        let mut cpus: Vec<usize> = ids.into_iter().map(|core| core.id).collect();
        if cpus.is_empty() {
            cpus.push(0);
        }
        Self { groups: group_by_core(&cpus, physical_core), quota: cgroup_quota() }
    }

    /// Number of CPUs in the mask.
    #[must_use]
    pub fn logical(&self) -> usize {
        self.groups.iter().map(Vec::len).sum()
    }

    /// Shards for `shards = "auto"`: physical cores within mask and quota, less one, at least 1.
    #[must_use]
    pub fn shards_auto(&self) -> usize {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a quota is small and positive"
        )]
        let quota = self.quota.map_or(usize::MAX, |cpus| cpus.floor() as usize);
        self.groups.len().min(quota).saturating_sub(1).max(1)
    }

    /// CPUs in the order in which they are given out: the first of every physical core, then siblings.
    /// The very first comes last: the kernel's own work and the control thread like to sit there.
    #[must_use]
    pub fn order(&self) -> Vec<usize> {
        let depth = self.groups.iter().map(Vec::len).max().unwrap_or(0);
        let mut order: Vec<usize> = (0..depth)
            .flat_map(|rank| self.groups.iter().filter_map(move |group| group.get(rank)))
            .copied()
            .collect();
        if !order.is_empty() {
            order.rotate_left(1);
        }
        order
    }
}

fn group_by_core(cpus: &[usize], core_of: impl Fn(usize) -> String) -> Vec<Vec<usize>> {
    let mut groups: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for &cpu in cpus {
        groups.entry(core_of(cpu)).or_default().push(cpu);
    }
    let mut groups: Vec<Vec<usize>> = groups.into_values().collect();
    for group in &mut groups {
        group.sort_unstable();
    }
    groups.sort_unstable();
    groups
}

/// A text that CPUs of one physical core share; without topology each CPU is taken for a core.
fn physical_core(cpu: usize) -> String {
    let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
    read_trimmed(path).unwrap_or_else(|| format!("cpu{cpu}"))
}

fn cgroup_quota() -> Option<f64> {
    let membership = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let v2 = membership.lines().find_map(|line| line.strip_prefix("0::/"));
    let root = Path::new("/sys/fs/cgroup");
    let below = v2.map(|group| root.join(group)).unwrap_or_default();
    // The narrowest quota on the way up counts; inside a container the root is the container's own group.
    let groups: Vec<PathBuf> =
        below.ancestors().take_while(|path| path.starts_with(root)).map(Path::to_owned).collect();
    let quotas =
        groups.iter().filter_map(|group| parse_cpu_max(&read_trimmed(group.join("cpu.max"))?));
    quotas.reduce(f64::min).or_else(cgroup_quota_v1)
}

fn cgroup_quota_v1() -> Option<f64> {
    let read = |name: &str| -> Option<f64> {
        read_trimmed(Path::new("/sys/fs/cgroup/cpu").join(name))?.parse().ok()
    };
    let (quota, period) = (read("cpu.cfs_quota_us")?, read("cpu.cfs_period_us")?);
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

/// `"200000 100000"` is 2 CPUs, `"max 100000"` is no limit.
fn parse_cpu_max(text: &str) -> Option<f64> {
    let (quota, period) = text.split_once(' ')?;
    let (quota, period): (f64, f64) = (quota.parse().ok()?, period.parse().ok()?);
    (period > 0.0).then(|| quota / period)
}

/// CPUs of a list as the kernel writes it, `0-3,6`, ascending; `None` for anything else, nothing included.
#[must_use]
pub fn parse_cpu_list(text: &str) -> Option<Vec<usize>> {
    let mut cpus = Vec::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if first > last || last >= CPUS_MAX {
            return None;
        }
        cpus.extend(first..=last);
    }
    cpus.sort_unstable();
    cpus.dedup();
    Some(cpus)
}

/// A limit of this process: bytes, files or whatever it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Limit {
    /// At most that.
    Of(u64),
    /// No limit.
    Unlimited,
}

/// Soft limit of this process under its name in `/proc/self/limits`, such as `Max open files`.
#[must_use]
pub fn limit(name: &str) -> Option<Limit> {
    parse_limit(&std::fs::read_to_string("/proc/self/limits").ok()?, name)
}

fn parse_limit(limits: &str, name: &str) -> Option<Limit> {
    let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(Limit::Unlimited),
        number => number.parse().ok().map(Limit::Of),
    }
}

/// Kernel release as text and as (major, minor).
#[must_use]
pub fn kernel() -> Option<(String, (u32, u32))> {
    let release = read_trimmed("/proc/sys/kernel/osrelease")?;
    let version = parse_version(&release)?;
    Some((release, version))
}

/// Major and minor of `6.18.44-generic`, `2.9.10`, `15.14 (Debian ...)`; a missing minor is 0.
#[must_use]
pub fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.trim_start_matches('v').split(|c: char| !c.is_ascii_digit());
    let major = parts.next()?.parse().ok()?;
    Some((major, parts.next().and_then(|minor| minor.parse().ok()).unwrap_or(0)))
}

/// CPU features that the binary's code needs and this CPU lacks; empty on x86-64-v3 and on other
/// architectures. Source: x86-64 psABI, micro-architecture levels.
#[must_use]
pub fn cpu_features_missing() -> Vec<&'static str> {
    let mut missing = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        // Not `is_x86_feature_detected!`: what the compiler was told to assume, that macro does not ask.
        let features = cpu_flags();
        let present = |flag: &str| features.split_whitespace().any(|have| have == flag);
        // lzcnt goes by the name abm in /proc/cpuinfo.
        let needed = [
            ("avx2", "avx2"),
            ("bmi1", "bmi1"),
            ("bmi2", "bmi2"),
            ("fma", "fma"),
            ("abm", "lzcnt"),
            ("movbe", "movbe"),
            ("f16c", "f16c"),
        ];
        if !features.is_empty() {
            missing.extend(needed.iter().filter(|(flag, _)| !present(flag)).map(|(_, name)| *name));
        }
    }
    missing
}

#[cfg(target_arch = "x86_64")]
fn cpu_flags() -> String {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = cpuinfo.lines().find(|line| line.starts_with("flags"));
    line.and_then(|line| line.split_once(':'))
        .map(|(_, flags)| flags.to_owned())
        .unwrap_or_default()
}

/// Content of a small file without surrounding blanks; `None` if it cannot be read.
pub fn read_trimmed(path: impl AsRef<Path>) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cores(groups: &[&[usize]], quota: Option<f64>) -> Cores {
        Cores { groups: groups.iter().map(|group| group.to_vec()).collect(), quota }
    }

    #[test]
    fn auto_leaves_one_physical_core_and_obeys_the_quota() {
        assert_eq!(cores(&[&[0]], None).shards_auto(), 1);
        assert_eq!(cores(&[&[0, 4], &[1, 5], &[2, 6], &[3, 7]], None).shards_auto(), 3);
        assert_eq!(cores(&[&[0], &[1], &[2], &[3]], Some(2.5)).shards_auto(), 1);
        assert_eq!(cores(&[&[0], &[1]], Some(0.5)).shards_auto(), 1);
    }

    #[test]
    fn siblings_come_after_all_physical_cores_and_the_first_cpu_after_its_peers() {
        assert_eq!(cores(&[&[0, 2], &[1, 3]], None).order(), [1, 2, 3, 0]);
    }

    #[test]
    fn cpus_are_grouped_by_what_topology_says() {
        let groups = group_by_core(&[3, 0, 1, 2], |cpu| format!("core{}", cpu % 2));
        assert_eq!(groups, [[0, 2], [1, 3]]);
    }

    #[test]
    fn kernel_texts_are_read() {
        assert_eq!(parse_cpu_max("200000 100000"), Some(2.0));
        assert_eq!(parse_cpu_max("max 100000"), None);
        assert_eq!(parse_cpu_list("0-2,7,1\n"), Some(vec![0, 1, 2, 7]));
        for text in ["", "0-", "2-1", "a", "0,,1", "0-99999999"] {
            assert_eq!(parse_cpu_list(text), None, "{text:?}");
        }
        assert_eq!(parse_version("6.18.44-fc"), Some((6, 18)));
        assert_eq!(parse_version("15.14 (Debian 15)"), Some((15, 14)));
        let limits = "Limit  Soft  Hard\nMax locked memory  8388608  8388608  bytes\nMax cpu time  unlimited  unlimited  s\n";
        assert_eq!(parse_limit(limits, "Max locked memory"), Some(Limit::Of(8_388_608)));
        assert_eq!(parse_limit(limits, "Max cpu time"), Some(Limit::Unlimited));
        assert_eq!(parse_limit(limits, "Max x"), None);
    }
}
