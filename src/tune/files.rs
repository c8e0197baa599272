//! The files of `tuning/` that a host of daisi is given, as they are in the binary, and what they set. Invariant:
//! what is installed, what the doctor compares with and what the README explains is one text; a test holds that.

/// Sysctls, where the system reads them at boot.
pub(crate) const SYSCTL: File = File {
    source: "tuning/sysctl.d/90-daisi.conf",
    place: "etc/sysctl.d/90-daisi.conf",
    text: include_str!("../../tuning/sysctl.d/90-daisi.conf"),
};
/// Transparent huge pages at boot.
pub(crate) const HUGE_PAGES: File = File {
    source: "tuning/tmpfiles.d/daisi-huge-pages.conf",
    place: "etc/tmpfiles.d/daisi-huge-pages.conf",
    text: include_str!("../../tuning/tmpfiles.d/daisi-huge-pages.conf"),
};
/// CPU governors at boot.
pub(crate) const GOVERNOR: File = File {
    source: "tuning/tmpfiles.d/daisi-governor.conf",
    place: "etc/tmpfiles.d/daisi-governor.conf",
    text: include_str!("../../tuning/tmpfiles.d/daisi-governor.conf"),
};
/// Limits of logins.
pub(crate) const LIMITS: File = File {
    source: "tuning/limits.d/90-daisi.conf",
    place: "etc/security/limits.d/90-daisi.conf",
    text: include_str!("../../tuning/limits.d/90-daisi.conf"),
};
/// Settings of PostgreSQL; the doctor compares.
pub(crate) const POSTGRES: &str = include_str!("../../tuning/postgresql/daisi.conf");
/// Settings of Redis; the doctor compares.
pub(crate) const REDIS: &str = include_str!("../../tuning/redis/daisi.conf");

/// One file to be installed.
pub(crate) struct File {
    /// Where it stands in the repository.
    pub(crate) source: &'static str,
    /// Where it belongs, below the root.
    pub(crate) place: &'static str,
    /// Its content.
    pub(crate) text: &'static str,
}

impl File {
    /// What lines of tmpfiles.d write into the files they name.
    pub(crate) fn writes(&self) -> Vec<(&'static str, &'static str)> {
        let of = |line: &'static str| {
            let mut words = line.strip_prefix("w ")?.split_whitespace();
            Some((words.next()?, words.nth(4)?))
        };
        self.text.lines().filter_map(of).collect()
    }
}

/// Names and values of lines such as `name = value`; a value in quotes loses them.
pub(crate) fn assignments(text: &'static str) -> Vec<(&'static str, &'static str)> {
    pairs(text, '=')
}

/// Names and values of lines such as `name value`.
pub(crate) fn directives(text: &'static str) -> Vec<(&'static str, &'static str)> {
    pairs(text, ' ')
}

fn pairs(text: &'static str, between: char) -> Vec<(&'static str, &'static str)> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let pairs = lines.filter_map(|line| line.split_once(between));
    pairs.map(|(name, value)| (name.trim(), value.trim().trim_matches('"'))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_sets_something() {
        assert!(assignments(SYSCTL.text).contains(&("vm.swappiness", "1")));
        assert!(assignments(POSTGRES).contains(&("synchronous_commit", "on")));
        assert!(directives(REDIS).contains(&("save", "")));
        let enabled = "/sys/kernel/mm/transparent_hugepage/enabled";
        assert_eq!(HUGE_PAGES.writes(), [(enabled, "madvise")]);
        assert_eq!(GOVERNOR.writes()[0].1, "performance");
    }
}
