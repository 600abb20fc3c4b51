//! What a durable write costs, and what a start costs. Ids are `storage/question/size`: entries of one batch, entries
//! of the log. Payloads are 128 bytes; every append ends in a sync of a real file (in the folder for temporary files).

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use futures::executor::block_on;
use synod_core::{
    Entries, Entry, Identity, Kind, LogIndex, Reign, RequestId, Stamp, Storage, Write, WriteId,
};
use synod_wal::Wal;

const PAYLOAD: usize = 128;
/// As many entries stay in the log while appends are measured.
const KEPT: u64 = 50_000;

fn entries(first: u64, count: usize, payload: &Bytes) -> Entries {
    Entries::numbered(LogIndex(first), vec![(); count], |index, ()| Entry {
        index,
        stamp: Stamp { high: 1, low: 0 },
        reign: Reign::default(),
        kind: Kind::Command,
        request: RequestId::NONE,
        payload: payload.clone(),
    })
}

fn append_to(criterion: &mut Criterion, name: &str, storage: &mut dyn Storage) {
    block_on(storage.recover(&Identity::default())).expect("a new log recovers");
    let payload = Bytes::from(vec![b'x'; PAYLOAD]);
    let mut next = 1;
    let mut id = 1;
    let mut group = criterion.benchmark_group(name);
    group.sample_size(20).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    for batch in [1, 16, 256] {
        group.throughput(Throughput::Elements(batch));
        group.bench_function(BenchmarkId::new("append", batch), |bencher| {
            bencher.iter_custom(|batches| {
                let mut spent = Duration::ZERO;
                for _ in 0..batches {
                    let count = usize::try_from(batch).expect("small");
                    let mut unit = Write { id: WriteId(id), forced: true, ..Write::default() };
                    unit.puts.push(entries(next, count, &payload));
                    // The log stays as long as it is, now and then.
                    if next > KEPT && next % 1024 < batch {
                        unit.compact_to = Some(LogIndex(next - KEPT));
                    }
                    let started = Instant::now();
                    block_on(storage.write(std::slice::from_ref(&unit))).expect("the disk works");
                    spent += started.elapsed();
                    id += 1;
                    next += batch;
                }
                spent
            });
        });
    }
    group.finish();
}

fn append(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut wal = Wal::create(folder.path().join("log"), Identity::default()).expect("a new log");
    append_to(criterion, "wal", &mut wal);
    #[cfg(feature = "redb")]
    {
        let path = folder.path().join("log.redb");
        let mut redb = synod_wal::redb::RedbStorage::create(path, Identity::default()).expect("a new log");
        append_to(criterion, "redb", &mut redb);
    }
}

fn recovery(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wal");
    group.sample_size(10).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(5));
    for count in [10_000, 100_000, 1_000_000] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let log = folder.path().join("log");
        fill(&log, count);
        group.throughput(Throughput::Elements(count));
        group.bench_function(BenchmarkId::new("recovery", count), |bencher| {
            bencher.iter_custom(|times| {
                let mut spent = Duration::ZERO;
                for _ in 0..times {
                    let started = Instant::now();
                    let mut wal = Wal::open(&log).expect("the log is there");
                    let recovered = block_on(wal.recover(&Identity::default())).expect("the log is good");
                    spent += started.elapsed();
                    assert_eq!(recovered.last_index(), LogIndex(count));
                }
                spent
            });
        });
    }
    group.finish();
}

/// A log of so many entries, 100 in a batch.
fn fill(log: &Path, count: u64) {
    let mut wal = Wal::create(log, Identity::default()).expect("a new log");
    block_on(wal.recover(&Identity::default())).expect("a new log recovers");
    let payload = Bytes::from(vec![b'x'; PAYLOAD]);
    for first in (1..=count).step_by(100) {
        let unit = Write {
            id: WriteId(first),
            forced: true,
            puts: vec![entries(first, 100, &payload)],
            ..Write::default()
        };
        block_on(wal.write(&[unit])).expect("the disk works");
    }
}

criterion_group!(benches, append, recovery);
criterion_main!(benches);
