#!/usr/bin/env bash
# Installs what building and testing need and this machine lacks. Silent when nothing is missing.
# Debian and Ubuntu: through apt, as root or with sudo. Elsewhere: says what to install.
set -euo pipefail

have() { command -v "$1" >/dev/null 2>&1; }

# Debian keeps server binaries outside the PATH of an ordinary user.
have_server() {
    local folder
    for folder in /usr/sbin /usr/local/bin /usr/lib/postgresql/*/bin; do
        [ -x "$folder/$1" ] && return 0
    done
    have "$1"
}

packages=()
need() { packages+=("$1"); }
{ have cc && have make; } || need build-essential
have git || need git
have setpriv || need util-linux
have valgrind || need valgrind
have strace || need strace
have_server nats-server || need nats-server
have_server redis-server || need redis-server
{ have_server initdb && have_server postgres; } || need postgresql

install_packages() {
    local sudo=()
    if [ "$(id -u)" -ne 0 ]; then
        have sudo || return 1
        sudo=(sudo)
    fi
    echo "setup: apt-get install ${packages[*]}"
    echo "setup: (the servers' packages may start services of their own; tests and demo use private ones)"
    "${sudo[@]}" apt-get update -qq
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        "${packages[@]}" >/dev/null
}

if [ ${#packages[@]} -gt 0 ]; then
    if ! { have apt-get && install_packages; }; then
        cat >&2 <<TEXT
setup: missing here: ${packages[*]} (names of Debian packages)
Install, by whatever means this system has:
  - a C compiler and make             (glommio, mimalloc and ring compile a little C)
  - git, and setpriv from util-linux
  - valgrind and strace               (make gate counts instructions and system calls)
  - nats-server 2.9 or newer          https://github.com/nats-io/nats-server/releases
  - redis-server 7.0 or newer
  - PostgreSQL: initdb and postgres
Servers outside PATH are named by DAISI_NATS_SERVER, DAISI_REDIS_SERVER, DAISI_POSTGRES, DAISI_INITDB.
TEXT
        exit 1
    fi
fi

if ! have cargo; then
    cat >&2 <<'TEXT'
setup: no cargo here. Install Rust through rustup, then open a new shell:
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal
rust-toolchain.toml names the version (1.95.0); rustup fetches it with the first build.
TEXT
    exit 1
fi
