#!/usr/bin/env bash
# Durable writes over TCP: this workspace beside etcd and ZooKeeper, in one run on one machine.
#
#   benches/servers.sh                      1, 64 and 256 clients, three rounds
#   CLIENTS="256" ROUNDS=5 SECONDS_EACH=5 benches/servers.sh
#   PROTOCOLS="raft multipaxos" benches/servers.sh
#
# Three etcd and three ZooKeeper servers are started on loopback with their normal fsync, and stopped at the
# end. In every round each system runs once, one after the other, on the same folder's disk; idle servers
# stay up. Medians of the rounds and ratios to `raft` are printed; every row is kept in $OUT (JSON lines).
#
# What to know before comparing: the clients of etcd and ZooKeeper cross a socket and share 8 connections to
# the leader; those of `compare` call their node in the same process. `disk` is one 4 KiB overwrite with
# fdatasync, for scale. Needs Debian's etcd-server, zookeeper (with a Java) and protobuf-compiler:
#   apt-get install -y --no-install-recommends etcd-server zookeeper protobuf-compiler libprotobuf-dev
set -euo pipefail
cd "$(dirname "$0")/.."

clients=${CLIENTS:-1 64 256}
rounds=${ROUNDS:-3}
seconds=${SECONDS_EACH:-4}
protocols=${PROTOCOLS:-raft}
port=${PORT_BASE:-24100}
out=${OUT:-}
work=$(mktemp -d)
out=${out:-$work/rows.jsonl}
pids=()

stop() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
    [ "$out" = "$work/rows.jsonl" ] || rm -rf "$work"
}
trap stop EXIT

fail() {
    echo "servers: $*" >&2
    exit 2
}

command -v etcd >/dev/null || fail "there is no etcd; see the head of this file"
command -v java >/dev/null || fail "there is no java; see the head of this file"
[ -f /usr/share/java/zookeeper.jar ] || fail "there is no ZooKeeper; see the head of this file"

cargo build --quiet --release -p synod-benches --features redb --bin compare
target=$(cargo metadata --format-version 1 --no-deps | sed -E 's/.*"target_directory":"([^"]*)".*/\1/')
CARGO_TARGET_DIR="$target/servers" cargo build --quiet --release --manifest-path benches/servers/Cargo.toml
compare=$target/release/compare
load=$target/servers/release/synod-server-load

start_etcd() {
    local cluster="" i
    for i in 0 1 2; do cluster+="m$i=http://127.0.0.1:$((port + 10 + i)),"; done
    for i in 0 1 2; do
        etcd --name "m$i" --data-dir "$work/etcd$i" \
            --listen-client-urls "http://127.0.0.1:$((port + i))" \
            --advertise-client-urls "http://127.0.0.1:$((port + i))" \
            --listen-peer-urls "http://127.0.0.1:$((port + 10 + i))" \
            --initial-advertise-peer-urls "http://127.0.0.1:$((port + 10 + i))" \
            --initial-cluster "${cluster%,}" --initial-cluster-state new \
            --quota-backend-bytes 8589934592 --logger zap --log-level error >"$work/etcd$i.log" 2>&1 &
        pids+=($!)
    done
}

start_zookeeper() {
    local i j
    printf '%s\n' 'log4j.rootLogger=ERROR, C' 'log4j.appender.C=org.apache.log4j.ConsoleAppender' \
        'log4j.appender.C.layout=org.apache.log4j.PatternLayout' >"$work/log4j.properties"
    for i in 1 2 3; do
        mkdir "$work/zk$i"
        echo "$i" >"$work/zk$i/myid"
        {
            printf '%s\n' tickTime=2000 initLimit=10 syncLimit=5 "dataDir=$work/zk$i" \
                "clientPort=$((port + 20 + i))" clientPortAddress=127.0.0.1 maxClientCnxns=0 \
                admin.enableServer=false '4lw.commands.whitelist=srvr'
            for j in 1 2 3; do echo "server.$j=127.0.0.1:$((port + 30 + j)):$((port + 40 + j))"; done
        } >"$work/zk$i/zoo.cfg"
        java -Xmx1g "-Dlog4j.configuration=file:$work/log4j.properties" -cp "$work:/usr/share/java/zookeeper.jar" \
            org.apache.zookeeper.server.quorum.QuorumPeerMain "$work/zk$i/zoo.cfg" >"$work/zk$i.log" 2>&1 &
        pids+=($!)
    done
}

# The client addresses of ZooKeeper, the leader's first; fails while there is none.
zookeeper_endpoints() {
    local i mode leader="" others=""
    for i in 1 2 3; do
        exec 5<>"/dev/tcp/127.0.0.1/$((port + 20 + i))" || return 1
        printf srvr >&5
        mode=$(sed -n 's/^Mode: //p' <&5) || true
        exec 5>&-
        if [ "$mode" = leader ]; then leader="127.0.0.1:$((port + 20 + i))"; else others+=",127.0.0.1:$((port + 20 + i))"; fi
    done
    [ -n "$leader" ] && echo "$leader$others"
}

wait_for() {
    local i
    for i in $(seq 120); do
        if "$@" >/dev/null 2>&1; then return 0; fi
        sleep 0.5
    done
    fail "$1 did not come up"
}

etcd_endpoints="127.0.0.1:$port,127.0.0.1:$((port + 1)),127.0.0.1:$((port + 2))"
etcd_up() { "$load" --system etcd --endpoints "$etcd_endpoints" --clients 1 --connections 1 --seconds 0; }

start_etcd
start_zookeeper
wait_for etcd_up
wait_for zookeeper_endpoints
zookeeper=$(zookeeper_endpoints)

# Runs a command, keeps each JSON line it prints under a name of its own.
row() {
    local name=$1
    shift
    echo "\$ $*" >&2
    "$@" 2>"$work/stderr" | sed "s/^{/{\"row\":\"$name\",/" | tee -a "$out" >/dev/null || { cat "$work/stderr" >&2; fail "$name"; }
}

workload=(--no-faults --read-ratio 0 --seconds "$seconds" --json)
for round in $(seq "$rounds"); do
    echo "round $round of $rounds" >&2
    row disk "$load" --system disk --endpoints "$work" --seconds 2
    for count in $clients; do
        for protocol in $protocols; do
            row compare "$compare" --protocols "$protocol" --transport tcp --storage wal --clients "$count" "${workload[@]}"
        done
        row etcd "$load" --system etcd --endpoints "$etcd_endpoints" --clients "$count" --seconds "$seconds"
        row zookeeper "$load" --system zookeeper --endpoints "$zookeeper" --clients "$count" --seconds "$seconds"
        row redb "$compare" --protocols raft --transport tcp --storage redb --clients "$count" "${workload[@]}"
        row memory "$compare" --protocols raft --transport tcp --storage memory --clients "$count" "${workload[@]}"
    done
done

# Medians by row, system and clients; ratios of each figure to that of raft on the write-ahead log.
awk -v FS='\t' '
function field(line, name,   rest) {
    if (!match(line, "\"" name "\":(\"[^\"]*\"|[^,}]*)")) return ""
    rest = substr(line, RSTART, RLENGTH); sub(/^"[^"]*":/, "", rest); gsub(/"/, "", rest); return rest
}
function median(list,   n, values, i, j, t) {
    n = split(list, values, " ")
    for (i = 2; i <= n; i++) for (j = i; j > 1 && values[j - 1] + 0 > values[j] + 0; j--) { t = values[j]; values[j] = values[j - 1]; values[j - 1] = t }
    return n % 2 ? values[(n + 1) / 2] : (values[n / 2] + values[n / 2 + 1]) / 2
}
{
    kind = field($0, "row"); system_name = field($0, "system"); protocol = field($0, "protocol")
    name = kind == "compare" ? protocol " on wal" : kind == "redb" || kind == "memory" ? protocol " on " kind : system_name
    key = name SUBSEP field($0, "clients")
    if (!(key in rate)) { order[++count] = key }
    rate[key] = rate[key] " " field($0, "writes_per_s")
    p50[key] = p50[key] " " field($0, "write_p50_us")
    p99[key] = p99[key] " " field($0, "write_p99_us")
}
END {
    printf "%-24s %8s %12s %10s %10s %18s\n", "system", "clients", "writes/s", "p50 us", "p99 us", "rate to raft on wal"
    for (i = 1; i <= count; i++) {
        split(order[i], part, SUBSEP)
        base = median(rate["raft on wal" SUBSEP part[2]])
        ratio = base > 0 && part[1] != "disk" ? sprintf("%.3f", median(rate[order[i]]) / base) : "-"
        printf "%-24s %8s %12.0f %10.1f %10.1f %18s\n", part[1], part[2], median(rate[order[i]]), median(p50[order[i]]), median(p99[order[i]]), ratio
    }
}' "$out"
echo "rows: $out"
