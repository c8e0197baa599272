#!/usr/bin/env bash
# Two builds of daisi under the same load in turns (A B A B), compared and held against limits. Ends with 1 if a
# limit is broken or a run lost, doubled or reordered an event, with 2 if it could not be run.
#
#     loadtest.sh BASE NEW
#
# BASE and NEW are paths of daisi binaries, or image:REFERENCE, from which Docker takes the binary.
#
#     LOADTEST   the loadtest binary                            [loadtest]
#     TRACE      a trace made by `loadtest record`; without it PROFILE is run
#     PROFILE    a shipped profile or a TOML file               [steady]
#     SPEED      speed of the trace                             [1x]
#     SECONDS_   length of a run of a profile                   [30]
#     ROUNDS     runs of each build                             [3]
#     SETTINGS   settings of daisi, as "shards=1 log.level=error"
#     LIMITS     file of limits                                 [limits.toml beside this script]
#     OUT        folder of the results                          [loadtest-results]
#
# Left in OUT: a folder a run, compare.md (for a comment), compare.html, check.md.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
loadtest=${LOADTEST:-loadtest}
rounds=${ROUNDS:-3}
limits=${LIMITS:-$here/limits.toml}
out=${OUT:-loadtest-results}

die() {
    echo "loadtest.sh: $*" >&2
    exit 2
}

[ $# -eq 2 ] || die "usage: loadtest.sh BASE NEW"
command -v "$loadtest" >/dev/null || die "no $loadtest: build it with cargo build --release -p daisi-loadtest"
[ -f "$limits" ] || die "no file of limits at $limits"
[ -z "${TRACE:-}" ] || [ -f "$TRACE" ] || die "no trace at $TRACE"
case $rounds in '' | *[!0-9]* | 0) die "ROUNDS must be 1 or more" ;; esac
mkdir -p "$out"

# Path of a build's binary, named by $2 where it comes out of an image.
binary_of() {
    local container
    case $1 in
    image:*)
        container=$(docker create "${1#image:}") || return 1
        docker cp -q "$container:/usr/local/bin/daisi" "$out/daisi-$2" >/dev/null || return 1
        docker rm "$container" >/dev/null
        echo "$out/daisi-$2"
        ;;
    */*) echo "$1" ;;
    *) echo "./$1" ;;
    esac
}

settings=()
for setting in ${SETTINGS:-}; do settings+=(--set "$setting"); done

# One run of a build on private servers of its own; results go to $2.
measure() {
    if [ -n "${TRACE:-}" ]; then
        "$loadtest" replay "$TRACE" --speed "${SPEED:-1x}" --salt ci --daisi "$1" "${settings[@]}" --out "$2" --quiet
    else
        "$loadtest" run --profile "${PROFILE:-steady}" --seconds "${SECONDS_:-30}" --seed 1 \
            --daisi "$1" "${settings[@]}" --out "$2" --quiet
    fi
}

base=$(binary_of "$1" base) || die "no binary in $1"
new=$(binary_of "$2" new) || die "no binary in $2"
for binary in "$base" "$new"; do [ -x "$binary" ] || die "$binary is no program"; done

bases="" news="" is_clean=true
for ((round = 1; round <= rounds; round++)); do
    for side in base new; do
        echo "loadtest.sh: round $round of $rounds, $side" >&2
        folder=$out/$side-$round
        rm -rf "$folder"
        # A run that lost events has results all the same: compare them, and fail at the end.
        measure "${!side}" "$folder" || is_clean=false
        [ -f "$folder/results.json" ] || die "the run $side-$round left no results"
    done
    bases+=,$out/base-$round
    news+=,$out/new-$round
done

"$loadtest" compare "base=${bases#,}" "new=${news#,}" --markdown --html "$out/compare.html" >"$out/compare.md"
status=0
"$loadtest" check "${news#,}" --base "${bases#,}" --limits "$limits" --markdown >"$out/check.md" || status=$?
cat "$out/compare.md" "$out/check.md"
[ "$status" -le 1 ] || die "the limits in $limits could not be checked"
if ! $is_clean; then
    echo "loadtest.sh: a run was not clean: events were lost, doubled, reordered or changed" >&2
    status=1
fi
exit "$status"
