//! How long a commit takes, and how many there are in a second: three replicas in one process, logs in
//! memory, 10,000 keys with 128-byte values, everything on one thread. Ids are `protocol/question/clients`.

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use synod_benches::compare::cluster::{Cluster, Surroundings};
use synod_benches::contenders::{self, Contender};
use synod_benches::options::{StorageKind, TransportKind};
use synod_benches::state_machine::Replicated;
use synod_benches::workload::Format;
use synod_checker::ValueId;
use synod_runtime::{Consistency, Node};
use tokio::runtime::{Builder, Runtime};

const PAYLOAD: usize = 128;
const KEYS: u32 = 10_000;

fn commit_latency(criterion: &mut Criterion) {
    for contender in contenders::all() {
        measure(criterion, &*contender, "commit_latency", 1);
    }
}

fn throughput(criterion: &mut Criterion) {
    for contender in contenders::all() {
        for clients in [64, 256] {
            measure(criterion, &*contender, "throughput", clients);
        }
    }
}

fn measure(criterion: &mut Criterion, contender: &dyn Contender, question: &str, clients: u32) {
    let mut subject = Subject::start(contender, clients);
    let mut group = criterion.benchmark_group(contender.name());
    group.throughput(Throughput::Elements(1));
    // Logs in memory only grow: keep them short.
    group.warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3)).sample_size(20);
    group.bench_function(BenchmarkId::new(question, clients), |bencher| {
        bencher.iter_custom(|commands| subject.commit(commands));
    });
    group.finish();
    subject.end();
}

/// A cluster under load.
struct Subject {
    runtime: Runtime,
    cluster: Cluster,
    clients: u32,
    /// Values written so far, for all clients together.
    written: u64,
}

impl Subject {
    fn start(contender: &dyn Contender, clients: u32) -> Subject {
        let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime without threads");
        let surroundings = Surroundings {
            transport: TransportKind::Memory,
            storage: StorageKind::Memory,
            snapshot_entries: None,
        };
        let cluster = runtime.block_on(async {
            let cluster = Cluster::start(contender, surroundings, 3, Replicated::store)
                .await
                .expect("nodes in memory start");
            cluster.seats().leader().await;
            cluster
        });
        Subject { runtime, cluster, clients, written: 0 }
    }

    /// Writes values, each client to keys of its own, and reads the last one of each client back.
    fn commit(&mut self, commands: u64) -> Duration {
        let leader = self.leader();
        let each = commands.div_ceil(u64::from(self.clients));
        let first = self.written;
        self.written += each * u64::from(self.clients);
        self.runtime.block_on(async {
            let begun = Instant::now();
            let tasks = (0..self.clients).map(|client| {
                let values = first + each * u64::from(client)..first + each * u64::from(client + 1);
                tokio::spawn(write(leader.clone(), client, self.clients, values))
            });
            for task in tasks.collect::<Vec<_>>() {
                task.await.expect("a client does not panic");
            }
            // Commands are rounded up to a whole number for each client.
            begun.elapsed().mul_f64(commands as f64 / (each * u64::from(self.clients)) as f64)
        })
    }

    fn leader(&self) -> Node {
        let seating = self.cluster.seats().watch();
        let seating = seating.borrow();
        seating.leader().expect("somebody leads").1.node.clone()
    }

    fn end(self) {
        let Subject { runtime, cluster, .. } = self;
        runtime.block_on(async {
            let states = cluster.states(Duration::from_secs(10)).await.expect("replicas come to rest");
            assert!(states.windows(2).all(|pair| pair[0] == pair[1]), "replicas have equal states");
            cluster.shutdown().await;
        });
    }
}

/// Client `client` of `clients` has every `clients`th key, and takes them in turn.
async fn write(node: Node, client: u32, clients: u32, values: std::ops::Range<u64>) {
    let format = Format::new(PAYLOAD);
    let own = u64::from(KEYS / clients);
    let key = |value: u64| client + clients * u32::try_from(value % own).expect("fewer than all keys");
    let last = values.end - 1;
    for value in values {
        let reply =
            node.propose(format.put(key(value), ValueId(value))).await.expect("a healthy cluster commits");
        assert!(matches!(reply[..], [0 | 1]), "the store answers whether the key had a value");
    }
    let answer = node.read(format.get(key(last)), Consistency::Linearizable).await;
    let value = format.returned(&answer.expect("a healthy cluster answers"));
    assert_eq!(value, Ok(Some(ValueId(last))), "the last value written is read");
}

criterion_group!(benches, commit_latency, throughput);
criterion_main!(benches);
