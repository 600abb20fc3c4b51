#!/bin/sh
# Instructions per ordered command, all three replicas together, counted by callgrind: the same on every run
# and whatever else the machine does. Two run lengths are counted, and their difference divided by the commands
# between them, so that start-up, election and warm-up cancel.
#
# usage: benches/core_cost.sh [PROTOCOL...]        (default: raft)
#   WINDOWS="64 256" benches/core_cost.sh raft     which windows to count (default: 1 16 256)
#   GROWTH=6 benches/core_cost.sh raft             instead: the core alone at window 256, while the log grows from
#                                                  10^3 to 10^6 commands (10^7 need 4 GiB of memory and minutes)
#
# Takes a minute or two after the build: counts do not scatter, so few commands do.
set -eu

cd "$(dirname "$0")/.."
command -v valgrind >/dev/null || { echo "core_cost.sh: valgrind is not installed" >&2; exit 2; }
cargo build --release --quiet --package synod-benches --bin core_cost
core_cost="${CARGO_TARGET_DIR:-target}/release/core_cost"
counts=$(mktemp)
trap 'rm -f "$counts"' EXIT

# Windows proposed in the shorter and in the longer run: enough that growing vectors are met about as often per
# command as in long runs. Small windows cost more a command, and a command of theirs costs much the same each time.
windows_of() {
    if [ "$1" -ge 64 ]; then echo "8 40"; elif [ "$1" -ge 8 ]; then echo "64 320"; else echo "512 1536"; fi
}

instructions() {
    valgrind --tool=callgrind --callgrind-out-file=/dev/null "$core_cost" "$@" >/dev/null 2>"$counts"
    count=$(sed -n 's/.*Collected : \([0-9]*\).*/\1/p' "$counts")
    [ -n "$count" ] || { cat "$counts" >&2; exit 1; }
    echo "$count"
}

# protocol, level, window, what the state machine is, further options
row() {
    protocol=$1 level=$2 window=$3 machine=$4
    shift 4
    # shellcheck disable=SC2046 # two words are wanted
    set -- $(windows_of "$window") "$@"
    fewer=$(($1 * window)) more=$(($2 * window))
    shift 2
    low=$(instructions --protocol "$protocol" --level "$level" --window "$window" --commands "$fewer" "$@")
    high=$(instructions --protocol "$protocol" --level "$level" --window "$window" --commands "$more" "$@")
    printf '%-12s %-9s %7s  %-14s %8s\n' \
        "$protocol" "$level" "$window" "$machine" "$(((high - low) / (more - fewer)))"
}

# For each power of ten: what a command costs while the log grows to that length from a tenth of it.
growth() {
    fewer=0 low=0 decade=3 commands=1000
    while [ "$decade" -le "$GROWTH" ]; do
        more=$(((commands + 255) / 256 * 256))
        high=$(instructions --protocol "$1" --window 256 --commands "$more")
        [ "$fewer" -eq 0 ] || printf '%-12s %10s %10s  %8s\n' "$1" "$fewer" "$more" "$(((high - low) / (more - fewer)))"
        fewer=$more low=$high decade=$((decade + 1)) commands=$((commands * 10))
    done
}

if [ -n "${GROWTH:-}" ]; then
    printf '%-12s %10s %10s  %8s\n' protocol from to "instructions/command"
    for protocol in "${@:-raft}"; do
        growth "$protocol"
    done
    exit
fi

printf '%-12s %-9s %7s  %-14s %8s\n' protocol level window "state machine" "instructions/command"
for protocol in "${@:-raft}"; do
    for window in ${WINDOWS:-1 16 256}; do
        row "$protocol" protocol "$window" none
        row "$protocol" replica "$window" none
        row "$protocol" replica "$window" key-value --state-machine
    done
done
