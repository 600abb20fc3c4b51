//! The way over the wire: a round trip over TCP on the loopback interface, and the codec of an append.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use synod_benches::loopback::Loopback;
use synod_core::{
    ClientId, Entries, Entry, Envelope, GroupId, Identity, Inbound, Incarnation, Kind, LogIndex, NodeId,
    Packet, Reign, RequestId, Sequence, Stamp, Transport, Wire,
};
use synod_raft::{Append, Message, Position, Term};
use synod_transport::Tcp;
use tokio::runtime::{Builder, Runtime};

/// Entries of an append.
const ENTRIES: usize = 64;

/// Bytes of a payload.
const PAYLOAD: usize = 128;

/// How long does an envelope with one command take to a peer and back?
fn round_trip(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("tcp");
    group.warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3)).sample_size(20);
    for in_flight in [1, 64] {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime without threads");
        let [one, two] = runtime.block_on(pair());
        let echo = runtime.spawn(echo(two));
        connect(&runtime, &one);
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::new("round-trip", in_flight), |bencher| {
            bencher.iter_custom(|count| runtime.block_on(ping(&one, count, in_flight)));
        });
        echo.abort();
    }
    group.finish();
}

/// What does the codec need for an envelope with an append of 64 commands?
fn codec(criterion: &mut Criterion) {
    let envelope = envelope(1, append(ENTRIES));
    let bytes = envelope.to_bytes();
    let mut group = criterion.benchmark_group("raft");
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    let mut out = BytesMut::with_capacity(bytes.len());
    group.bench_function(BenchmarkId::new("encode-append", ENTRIES), |bencher| {
        bencher.iter(|| {
            out.clear();
            envelope.encode(&mut out);
            assert_eq!(out.len(), bytes.len());
        });
    });
    group.bench_function(BenchmarkId::new("decode-append", ENTRIES), |bencher| {
        bencher.iter(|| {
            let decoded = Envelope::<Message>::from_bytes(bytes.clone()).expect("what was encoded");
            assert_eq!(decoded.packets.len(), 1);
            decoded
        });
    });
    group.finish();
}

/// Two ends that know each other.
async fn pair() -> [Tcp<Message>; 2] {
    let ports = Loopback::reserve(2).expect("two ports");
    let open = async |node| {
        let tcp = Tcp::bind_plaintext(ports.address(NodeId(node)), []).await.expect("the port is free");
        tcp.open(&Identity { node: NodeId(node), ..Identity::default() }, Incarnation(1));
        tcp.set_peers(&ports.peers());
        tcp
    };
    [open(1).await, open(2).await]
}

/// Sends everything back.
async fn echo(tcp: Tcp<Message>) {
    let mut inbound = Vec::new();
    while tcp.receive(&mut inbound).await.is_ok() {
        for Inbound { from, envelope } in inbound.drain(..) {
            tcp.send(from, Envelope { from: NodeId(2), ..envelope });
        }
    }
}

/// Waits until the first envelope has come back.
fn connect(runtime: &Runtime, tcp: &Tcp<Message>) {
    runtime.block_on(async {
        let mut inbound = Vec::new();
        while inbound.is_empty() {
            tcp.send(NodeId(2), envelope(1, append(1)));
            let _ = tokio::time::timeout(Duration::from_millis(10), tcp.receive(&mut inbound)).await;
        }
        // Those that were sent meanwhile.
        while tokio::time::timeout(Duration::from_millis(50), tcp.receive(&mut inbound)).await.is_ok() {}
    });
}

/// `count` round trips, `in_flight` at a time.
async fn ping(tcp: &Tcp<Message>, count: u64, in_flight: u64) -> Duration {
    let envelope = envelope(1, append(1));
    let mut inbound = Vec::new();
    let begun = Instant::now();
    let (mut sent, mut back) = (0, 0);
    while back < count {
        while sent < count && sent - back < in_flight {
            tcp.send(NodeId(2), envelope.clone());
            sent += 1;
        }
        tcp.receive(&mut inbound).await.expect("the transport is open");
        back += inbound.len() as u64;
        inbound.clear();
    }
    begun.elapsed()
}

fn envelope(from: u64, message: Message) -> Envelope<Message> {
    Envelope {
        from: NodeId(from),
        from_incarnation: Incarnation(1),
        to_incarnation: Incarnation(1),
        group: GroupId(0),
        packets: vec![Packet::Protocol(message)],
    }
}

fn append(entries: usize) -> Message {
    let payload = Bytes::from(vec![7; PAYLOAD]);
    let entries = Entries::numbered(LogIndex(1000), vec![payload; entries], |index, payload| Entry {
        index,
        stamp: Stamp { high: 3, low: 0 },
        reign: Reign { number: 3, leader: NodeId(1) },
        kind: Kind::Command,
        request: RequestId {
            client: ClientId(2),
            sequence: Sequence(index.0),
            first_incomplete: Sequence(index.0),
        },
        payload,
    });
    let prev = Position { index: LogIndex(999), term: Term(3) };
    Message::Append(Append { term: Term(3), prev, commit: LogIndex(990), entries })
}

criterion_group!(benches, round_trip, codec);
criterion_main!(benches);
