#!/bin/sh
# Lets interrupts come on the named CPUs only, so that shards on the others are not interrupted.
#   irq-affinity.sh [--dry-run] LIST        LIST as in taskset: 0 or 0-1,4
# Those that the kernel does not let go (of a timer, of a queue that belongs to a CPU) are counted and left. Stop
# irqbalance first, or it moves them back. IRQ_ROOT names another root than /, to try it out.
set -eu

dry=
if [ "${1:-}" = --dry-run ]; then dry=1; shift; fi
case "${1:-}" in
'' | *[!0-9,-]*) echo 'usage: irq-affinity.sh [--dry-run] LIST   (such as 0 or 0-1,4)' >&2; exit 2 ;;
esac
cpus=$1
irq=${IRQ_ROOT:-}/proc/irq
moved=0 fine=0 kept=0

if [ -z "${IRQ_ROOT:-}" ] && pidof irqbalance >/dev/null 2>&1; then
    echo 'irq-affinity.sh: irqbalance runs and will move them back: systemctl disable --now irqbalance' >&2
fi
for file in "$irq"/*/smp_affinity_list; do
    [ -e "$file" ] || continue
    if [ "$(cat "$file")" = "$cpus" ]; then
        fine=$((fine + 1))
    elif [ -n "$dry" ]; then
        echo "$file: $(cat "$file") -> $cpus"
        moved=$((moved + 1))
    elif { echo "$cpus" >"$file"; } 2>/dev/null; then
        moved=$((moved + 1))
    else
        kept=$((kept + 1))
    fi
done
echo "interrupts: $moved moved${dry:+ (dry run: none written)}, $fine as they should be, $kept that the kernel keeps"
