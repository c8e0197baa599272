//! What of `tuning/` this host has: kernel values, huge pages, governors, interrupts, isolation, and whether a
//! spinning shard takes time from anybody. Read from the files of a root folder, so that tests need no other
//! machine. Invariant: what cannot be read is told with its reason, never guessed.

use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use super::report::{Area, Finding};
use crate::config::plan::Plan;
use crate::config::value::format_duration;
use crate::host::{self, Cores};
use crate::tune::{files, sysctl_path};

/// Interrupts that are named; the others are counted.
const NAMED_MAX: usize = 6;

pub(super) fn examine(root: &Path, plan: &Plan, cores: &Cores) -> Vec<Finding> {
    let shards = plan.shard_cores.as_slice();
    let mut findings: Vec<Finding> = files::assignments(files::SYSCTL.text)
        .into_iter()
        .map(|(name, wanted)| sysctl(root, name, wanted))
        .collect();
    findings.push(huge_pages(root));
    findings.push(governor(root, shards));
    findings.push(interrupts(root, shards, cores));
    findings.push(isolation(root, shards));
    findings.push(busy_poll(root));
    findings.extend(spin(plan.spin_before_park, are_servers_here(plan), cores, shards));
    findings
}

/// Why a file says nothing: it is not there, or it may not be read.
enum Silent {
    Absent,
    Forbidden(String),
}

fn read(root: &Path, path: &str) -> Result<String, Silent> {
    let text = fs::read_to_string(root.join(path.trim_start_matches('/')));
    text.map(|text| text.trim().to_owned()).map_err(|error| match error.kind() {
        ErrorKind::NotFound => Silent::Absent,
        _ => Silent::Forbidden(format!("not readable: {error}")),
    })
}

fn remedy(what: &str, setting: &str, file: &files::File) -> String {
    format!("{what}: daisi tune --apply --only {setting}, or install {}", file.source)
}

fn sysctl(root: &Path, name: &'static str, wanted: &str) -> Finding {
    let remedy = || remedy(&format!("set {name} = {wanted}"), "sysctl", &files::SYSCTL);
    match read(root, &sysctl_path(name)) {
        Ok(now) if now == wanted => Finding::ok(Area::Host, name, now),
        Ok(now) => Finding::warn(Area::Host, name, now, &remedy()),
        Err(Silent::Absent) => Finding::ok(Area::Host, name, "this kernel has no such value"),
        Err(Silent::Forbidden(why)) => Finding::warn(Area::Host, name, why, &remedy()),
    }
}

fn huge_pages(root: &Path) -> Finding {
    let name = "huge pages";
    let remedy = || remedy("set it to madvise", "huge-pages", &files::HUGE_PAGES);
    match read(root, "/sys/kernel/mm/transparent_hugepage/enabled") {
        Ok(now) if now.contains("[always]") => {
            let fact =
                "transparent huge pages always: compaction can stop a shard for milliseconds";
            Finding::warn(Area::Host, name, fact, &remedy())
        }
        Ok(now) => Finding::ok(Area::Host, name, now),
        Err(Silent::Absent) => {
            Finding::ok(Area::Host, name, "this kernel has no transparent huge pages")
        }
        Err(Silent::Forbidden(why)) => Finding::warn(Area::Host, name, why, &remedy()),
    }
}

// A core in sleep is woken at the clock it went to sleep with.
fn governor(root: &Path, shards: &[usize]) -> Finding {
    let name = "governor";
    let of = |cpu: &usize| {
        read(root, &format!("/sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor")).ok()
    };
    let governors: Vec<(usize, String)> =
        shards.iter().filter_map(|cpu| Some((*cpu, of(cpu)?))).collect();
    if governors.is_empty() {
        let fact = "not readable: no CPU has one here, the hypervisor or the firmware decides";
        return Finding::ok(Area::Host, name, fact);
    }
    let slow: Vec<String> = governors
        .iter()
        .filter(|(_, governor)| governor != "performance")
        .map(|(cpu, governor)| format!("CPU {cpu}: {governor}"))
        .collect();
    if slow.is_empty() {
        return Finding::ok(Area::Host, name, "performance");
    }
    let remedy = remedy("set performance", "governor", &files::GOVERNOR);
    Finding::warn(Area::Host, name, slow.join(", "), &remedy)
}

fn interrupts(root: &Path, shards: &[usize], cores: &Cores) -> Finding {
    let name = "interrupts";
    let entries = match fs::read_dir(root.join("proc/irq")) {
        Ok(entries) => entries,
        Err(error) => {
            let fact = format!("not readable: {error}, as in containers; look on their host");
            return Finding::ok(Area::Host, name, fact);
        }
    };
    let numbers = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut on_shards: Vec<u32> = numbers
        .filter_map(|number| number.parse().ok())
        .filter(|number| meets(root, *number, shards))
        .collect();
    on_shards.sort_unstable();
    if on_shards.is_empty() {
        return Finding::ok(Area::Host, name, "none on CPUs of shards");
    }
    let named: Vec<String> = on_shards.iter().take(NAMED_MAX).map(u32::to_string).collect();
    let rest = on_shards.len().saturating_sub(NAMED_MAX);
    let rest = if rest > 0 { format!(" and {rest} more") } else { String::new() };
    let fact = format!("on CPUs of shards: {}{rest}", named.join(", "));
    let others: Vec<String> =
        cores.order().iter().filter(|cpu| !shards.contains(cpu)).map(usize::to_string).collect();
    let remedy = if others.is_empty() {
        "leave a CPU without a shard; then daisi tune --apply --only irq --irq-cpus <it>".to_owned()
    } else {
        let others = others.join(",");
        format!("for the last of the latency: daisi tune --apply --only irq --irq-cpus {others}")
    };
    Finding::hint(Area::Host, name, fact, &remedy)
}

// Where it comes now; where a kernel does not tell that, where it may come.
fn meets(root: &Path, number: u32, shards: &[usize]) -> bool {
    let list = |file: &str| {
        let text = read(root, &format!("/proc/irq/{number}/{file}")).ok()?;
        host::parse_cpu_list(&text)
    };
    let cpus = list("effective_affinity_list").or_else(|| list("smp_affinity_list"));
    // An interrupt nobody has asked for has no CPU.
    cpus.is_some_and(|cpus| cpus.iter().any(|cpu| shards.contains(cpu)))
}

fn isolation(root: &Path, shards: &[usize]) -> Finding {
    let name = "isolation";
    let list = |file: &str| {
        let text = read(root, &format!("/sys/devices/system/cpu/{file}")).unwrap_or_default();
        host::parse_cpu_list(&text).unwrap_or_default()
    };
    let (isolated, tickless) = (list("isolated"), list("nohz_full"));
    let all_in = |list: &[usize]| shards.iter().all(|cpu| list.contains(cpu));
    match (all_in(&isolated), all_in(&tickless)) {
        (true, true) => Finding::ok(Area::Host, name, "CPUs of shards are isolated, without ticks"),
        (is_isolated, _) => {
            let fact = if is_isolated {
                "CPUs of shards are isolated, and have the kernel's ticks"
            } else {
                "the kernel may run others on CPUs of shards"
            };
            let remedy =
                "for the last of the latency: tuning/systemd, then tuning/grub.d/90-daisi.cfg";
            Finding::hint(Area::Host, name, fact, remedy)
        }
    }
}

// daisi's own sockets are read when the ring says so, and do not spin, whatever it is.
fn busy_poll(root: &Path) -> Finding {
    let name = "net.core.busy_poll";
    match read(root, &sysctl_path(name)) {
        Ok(now) if now == "0" => Finding::ok(Area::Host, name, "0"),
        Ok(now) => {
            let fact = format!("{now} us: servers here spin on the network card, daisi does not");
            Finding::ok(Area::Host, name, fact)
        }
        Err(Silent::Absent) => {
            Finding::ok(Area::Host, name, "not there: a network namespace does not show it")
        }
        Err(Silent::Forbidden(why)) => Finding::ok(Area::Host, name, why),
    }
}

fn are_servers_here(plan: &Plan) -> bool {
    let is_loopback = |host: &str| match host.parse::<IpAddr>() {
        Ok(address) => address.is_loopback(),
        Err(_) => host == "localhost",
    };
    let servers = plan.nats.servers.iter().chain([&plan.redis.server]);
    servers.into_iter().any(|server| is_loopback(&server.host))
}

fn spin(
    spin: Duration,
    are_servers_here: bool,
    cores: &Cores,
    shards: &[usize],
) -> Option<Finding> {
    if spin.is_zero() {
        return None;
    }
    let name = "spin";
    let span = format_duration(spin);
    let siblings = |group: &&Vec<usize>| group.iter().filter(|cpu| shards.contains(cpu)).count();
    let warn = |fact: String, remedy: &str| Some(Finding::warn(Area::Host, name, fact, remedy));
    if cores.logical() <= shards.len() {
        return warn(
            format!("{span}, and every CPU has a shard: all else waits while they spin"),
            "leave a CPU without a shard, or set spin_before_park = \"0s\"",
        );
    }
    if cores.quota.is_some() {
        return warn(
            format!("{span}, under a quota: what is spun away is missing under load"),
            "give whole CPUs without a quota, or set spin_before_park = \"0s\"",
        );
    }
    if cores.groups.iter().any(|group| siblings(&group) > 1) {
        return warn(
            format!("{span}, and two shards share a physical core: one slows the other by it"),
            "lower `shards` to one a physical core, or set spin_before_park = \"0s\"",
        );
    }
    let fact = format!("{span} before each sleep");
    if are_servers_here {
        let fact = format!("{fact}; servers of this host may want the shards' CPUs too");
        let remedy = "keep them off these CPUs: tuning/systemd";
        return Some(Finding::hint(Area::Host, name, fact, remedy));
    }
    Some(Finding::ok(Area::Host, name, fact))
}

#[cfg(test)]
mod tests {
    use super::super::report::Level;
    use super::*;

    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    fn cores(groups: &[&[usize]], quota: Option<f64>) -> Cores {
        Cores { groups: groups.iter().map(|group| group.to_vec()).collect(), quota }
    }

    #[test]
    fn kernel_values_are_compared_with_the_file_that_is_installed() {
        let host = root(&[("proc/sys/vm/swappiness", "60\n"), ("proc/sys/vm/x/y", "")]);
        let found = sysctl(host.path(), "vm.swappiness", "1");
        assert_eq!((found.level, found.fact.as_str()), (Level::Warn, "60"));
        let remedy = found.remedy.unwrap();
        assert!(remedy.contains("--only sysctl") && remedy.contains("tuning/sysctl.d"), "{remedy}");
        assert_eq!(sysctl(host.path(), "vm.swappiness", "60").level, Level::Ok);
        assert!(sysctl(host.path(), "vm.absent", "1").fact.contains("no such value"));
        assert!(sysctl(host.path(), "vm.x", "1").fact.contains("not readable"));
    }

    #[test]
    fn huge_pages_governors_and_busy_polling_are_judged() {
        let path = "sys/kernel/mm/transparent_hugepage/enabled";
        let level = |text| huge_pages(root(&[(path, text)]).path()).level;
        assert_eq!(level("[always] madvise never"), Level::Warn);
        assert_eq!(level("always [madvise] never"), Level::Ok);
        let file = |cpu: usize| format!("sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor");
        let host = root(&[(&file(0), "powersave\n"), (&file(1), "performance\n")]);
        assert_eq!(governor(host.path(), &[1]).level, Level::Ok);
        assert_eq!(governor(host.path(), &[0, 1]).fact, "CPU 0: powersave");
        assert!(governor(host.path(), &[7]).fact.starts_with("not readable"));
        assert!(busy_poll(host.path()).fact.starts_with("not there"));
        let host = root(&[("proc/sys/net/core/busy_poll", "50\n")]);
        assert!(busy_poll(host.path()).fact.starts_with("50 us"));
    }

    #[test]
    fn interrupts_on_cpus_of_shards_are_named_with_the_cpus_that_are_free() {
        let host = root(&[
            ("proc/irq/9/smp_affinity_list", "0-1\n"),
            ("proc/irq/9/effective_affinity_list", "0\n"),
            ("proc/irq/24/smp_affinity_list", "0-1\n"),
            ("proc/irq/30/effective_affinity_list", "\n"),
            ("proc/irq/default_smp_affinity", "3\n"),
        ]);
        let two = cores(&[&[0], &[1]], None);
        let found = interrupts(host.path(), &[1], &two);
        assert_eq!(found.fact, "on CPUs of shards: 24");
        assert!(found.remedy.unwrap().ends_with("--irq-cpus 0"));
        assert!(interrupts(host.path(), &[2], &two).remedy.is_none());
        assert!(interrupts(root(&[]).path(), &[1], &two).fact.starts_with("not readable"));
    }

    #[test]
    fn isolation_is_advice_until_it_is_whole() {
        let cpus = "sys/devices/system/cpu";
        let files = [(format!("{cpus}/isolated"), "2-3"), (format!("{cpus}/nohz_full"), "3")];
        let files: Vec<(&str, &str)> = files.iter().map(|(p, t)| (p.as_str(), *t)).collect();
        let host = root(&files);
        let advice = |shards: &[usize]| isolation(host.path(), shards).remedy.is_some();
        assert_eq!((advice(&[3]), advice(&[2, 3]), advice(&[1])), (false, true, true));
        assert_eq!(isolation(host.path(), &[1]).level, Level::Ok, "advice is no warning");
    }

    #[test]
    fn spinning_warns_where_it_takes_time_from_somebody() {
        let some = Duration::from_micros(100);
        let level =
            |cores: Cores, shards: &[usize]| spin(some, false, &cores, shards).unwrap().level;
        assert_eq!(spin(Duration::ZERO, true, &cores(&[&[0]], None), &[0]), None);
        assert_eq!(level(cores(&[&[0]], None), &[0]), Level::Warn);
        assert_eq!(level(cores(&[&[0], &[1]], None), &[1]), Level::Ok);
        assert_eq!(level(cores(&[&[0], &[1]], None), &[0, 1]), Level::Warn);
        assert_eq!(level(cores(&[&[0], &[1]], Some(2.0)), &[1]), Level::Warn);
        assert_eq!(level(cores(&[&[0, 1], &[2]], None), &[0, 1]), Level::Warn);
        let found = |here| spin(some, here, &cores(&[&[0], &[1]], None), &[1]).unwrap();
        assert_eq!(found(false).fact, "100us before each sleep");
        assert!(found(true).remedy.is_some() && found(false).remedy.is_none());
    }
}
