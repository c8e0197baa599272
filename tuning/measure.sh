#!/usr/bin/env bash
# Measures what a setting is worth, on a machine that does nothing else: tuning/README.md says where the figures go.
#   tuning/measure.sh spin        daisi beside itself with three spins, in turns of one run
#   tuning/measure.sh postgres    PostgreSQL as shipped and with tuning/postgresql/daisi.conf, run after run
#   tuning/measure.sh redis       Redis likewise, its append-only file included
# ROUNDS=5 turns each. Needs what `make bench` builds.
set -euo pipefail
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-target}
peers=${CARGO_TARGET_DIR:-benches/peers/target}
rounds=${ROUNDS:-5}
results=bench-results/tuning
bench=("$target/release/bench" --daisi "$target/release/daisi" --relay "$target/release/daisi-relay"
    --peers "$peers/release")

# One run of each in turns: what the machine does besides falls on both.
in_turns() {
    local job=$1 name=$2
    shift 2
    for round in $(seq "$rounds"); do
        echo "== $name, round $round of $rounds: as shipped, then tuned"
        "${bench[@]}" --jobs "$job" --only daisi --rounds 1 --results "$results/$name/shipped"
        "${bench[@]}" --jobs "$job" --only daisi --rounds 1 --results "$results/$name/tuned" "$@"
    done
}

case "${1:-}" in
spin)
    "${bench[@]}" --rounds "$rounds" --timed-s 20 --results "$results/spin" \
        --beside spin20:spin_before_park=20us --beside spin100:spin_before_park=100us \
        --beside spin1000:spin_before_park=1ms \
        --only daisi,daisi-spin20,daisi-spin100,daisi-spin1000
    ;;
postgres) in_turns ingest postgres --postgres-conf tuning/postgresql/daisi.conf ;;
redis) in_turns cdc redis --redis-conf tuning/redis/daisi.conf ;;
*) sed -n '2,6s/^# //p' "$0" >&2 && exit 2 ;;
esac
