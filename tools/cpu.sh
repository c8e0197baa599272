#!/usr/bin/env bash
# Says so when this CPU cannot run what is built here (.cargo/config.toml: x86-64-v3), before the build does.
set -euo pipefail

[ "$(uname -m)" = x86_64 ] || exit 0
flags=" $(sed -n 's/^flags[^:]*://p;T;q' /proc/cpuinfo) "
missing=
# As `host::cpu_features_missing`; lzcnt goes by the name abm in /proc/cpuinfo.
for flag in avx2 bmi1 bmi2 fma abm movbe f16c; do
    case $flags in *" $flag "*) ;; *) missing="$missing $flag" ;; esac
done
[ -z "$missing" ] && exit 0
cat >&2 <<TEXT
This CPU lacks:$missing. What is built here needs x86-64-v3 (Intel Haswell 2013, AMD Excavator 2015, or newer).
Build on such a machine, or for this one, slower:
    cargo build --release -p daisi --config 'target.x86_64-unknown-linux-gnu.rustflags=["-C","target-cpu=x86-64"]'
TEXT
exit 1
