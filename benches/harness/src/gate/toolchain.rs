//! What instruction counts depend on beside the code: compiler, target CPU, valgrind, C library. Figures made
//! with other ones say nothing about a change.

use std::process::Command;

use serde::{Deserialize, Serialize};

/// Where cargo keeps the flags of this workspace.
const CARGO_CONFIG: &str = include_str!("../../../../.cargo/config.toml");

/// Versions, as the tools tell them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Toolchain {
    pub(crate) rustc: String,
    pub(crate) target_cpu: String,
    pub(crate) valgrind: String,
    pub(crate) libc: String,
}

impl Toolchain {
    /// Asks the tools.
    pub(crate) fn look() -> Self {
        let flags = std::env::var("RUSTFLAGS").unwrap_or_else(|_| CARGO_CONFIG.to_owned());
        Self {
            rustc: first_line("rustc", &["--version"]),
            target_cpu: target_cpu(&flags),
            valgrind: first_line("valgrind", &["--version"]),
            libc: first_line("getconf", &["GNU_LIBC_VERSION"]),
        }
    }

    /// What differs, in words; `None` if nothing does.
    pub(crate) fn difference(&self, now: &Self) -> Option<String> {
        let pairs = [
            ("rustc", &self.rustc, &now.rustc),
            ("target-cpu", &self.target_cpu, &now.target_cpu),
            ("valgrind", &self.valgrind, &now.valgrind),
            ("libc", &self.libc, &now.libc),
        ];
        let differing = pairs.into_iter().filter(|(_, left, right)| left != right);
        let words = differing.map(|(name, left, right)| format!("{name}: {left}, now {right}"));
        let words = words.collect::<Vec<_>>().join("; ");
        (!words.is_empty()).then_some(words)
    }
}

fn first_line(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let line = text.unwrap_or_default().lines().next().unwrap_or_default().trim().to_owned();
    if line.is_empty() { "none".to_owned() } else { line }
}

fn target_cpu(flags: &str) -> String {
    let value = flags.split("target-cpu=").nth(1).unwrap_or("default");
    value.chars().take_while(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c)).collect()
}

#[cfg(test)]
mod tests {
    use super::{CARGO_CONFIG, Toolchain, target_cpu};

    #[test]
    fn the_target_cpu_is_found_among_the_flags() {
        assert_eq!(target_cpu(CARGO_CONFIG), "x86-64-v3");
        assert_eq!(target_cpu("-C target-cpu=native -g"), "native");
        assert_eq!(target_cpu(""), "default");
    }

    #[test]
    fn another_version_is_named() {
        let one = |rustc: &str| Toolchain {
            rustc: rustc.to_owned(),
            target_cpu: "c".to_owned(),
            valgrind: "v".to_owned(),
            libc: "l".to_owned(),
        };
        assert_eq!(one("a").difference(&one("a")), None);
        assert_eq!(one("a").difference(&one("b")).as_deref(), Some("rustc: a, now b"));
    }
}
