//! What clocks cost, beside other crates: comparing and merging vectors of 3, 8 and 64 actors, and a tick of a hybrid
//! clock beside the reading of the wall clock that it needs. Ids are `crate/question/actors`.
//!
//! `cargo bench -p synod-benches --bench clocks`

use std::hint::black_box;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crdts::{CmRDT, CvRDT};
use criterion::{Bencher, Criterion, criterion_group, criterion_main};
use synod_clocks::{ActorId, Causality, Dot, HybridClock, HybridTime, VersionVector, WallReading};

const ACTORS: [u32; 3] = [3, 8, 64];
/// Vectors merged in one timing, so that the time of the timer does not count.
const BATCH: usize = 100;

/// Two vectors that name the same actors, as the replicas of one object do. The first is behind in the last entry alone,
/// so a comparison has to look at all of them.
fn counters(actors: u32) -> [Vec<(u32, u64)>; 2] {
    let behind: Vec<(u32, u64)> = (0..actors).map(|actor| (actor, 1_000 + u64::from(actor))).collect();
    let mut ahead = behind.clone();
    ahead[actors as usize - 1].1 += 1;
    [behind, ahead]
}

fn synod(counters: &[(u32, u64)]) -> VersionVector {
    let dots = counters.iter().map(|(actor, n)| Dot::new(ActorId::new(*actor), *n).expect("a small counter"));
    VersionVector::from_dots(dots).expect("actors that differ")
}

/// The same vector with every second actor left out: comparing has to walk, and merging to make room.
fn every_second(version: &VersionVector) -> VersionVector {
    let mut fewer = version.clone();
    fewer.prune(|dot| dot.actor().node() % 2 == 0);
    fewer
}

fn crdts(counters: &[(u32, u64)]) -> crdts::VClock<u32> {
    let mut clock = crdts::VClock::new();
    for (actor, n) in counters {
        clock.apply(crdts::Dot::new(*actor, *n));
    }
    clock
}

fn vclock(counters: &[(u32, u64)]) -> vclock::VClock<u32, u64> {
    let mut clock = vclock::VClock::default();
    for (actor, n) in counters {
        (0..*n).for_each(|_| clock.incr(actor));
    }
    clock
}

fn compare(criterion: &mut Criterion) {
    for actors in ACTORS {
        let [behind, ahead] = counters(actors);
        let id = |name: &str| format!("{name}/compare/{actors}");

        let (a, b) = (synod(&behind), synod(&ahead));
        assert_eq!(a.compare(&b), Causality::Before);
        criterion
            .bench_function(&id("synod"), |bencher| bencher.iter(|| black_box(&a).compare(black_box(&b))));

        let (a, b) = (crdts(&behind), crdts(&ahead));
        assert!(a < b);
        criterion.bench_function(&id("crdts"), |bencher| {
            bencher.iter(|| black_box(&a).partial_cmp(black_box(&b)));
        });

        let (a, b) = (vclock(&behind), vclock(&ahead));
        assert!(a < b);
        criterion.bench_function(&id("vclock"), |bencher| {
            bencher.iter(|| black_box(&a).partial_cmp(black_box(&b)));
        });
    }
    for actors in ACTORS {
        let all = synod(&counters(actors)[0]);
        let fewer = every_second(&all);
        assert_eq!(all.compare(&fewer), Causality::After);
        criterion.bench_function(&format!("synod/compare_other_actors/{actors}"), |bencher| {
            bencher.iter(|| black_box(&all).compare(black_box(&fewer)));
        });
    }
}

fn merge(criterion: &mut Criterion) {
    for actors in ACTORS {
        let [behind, ahead] = counters(actors);
        let id = |name: &str| format!("{name}/merge/{actors}");

        let (a, b) = (synod(&behind), synod(&ahead));
        criterion.bench_function(&id("synod"), |bencher| {
            in_place(bencher, &a, |into| into.merge(black_box(&b)));
        });

        let (a, b) = (crdts(&behind), crdts(&ahead));
        // Takes its argument by value: the copy is made outside of the timing, and freed inside.
        criterion.bench_function(&id("crdts"), |bencher| {
            let pairs = || vec![(a.clone(), Some(b.clone())); BATCH];
            bencher.iter_custom(|count| {
                in_batches(count, pairs, |(into, b)| into.merge(b.take().expect("once")))
            });
        });

        let (a, b) = (vclock(&behind), vclock(&ahead));
        criterion.bench_function(&id("vclock"), |bencher| {
            in_place(bencher, &a, |into| into.merge(black_box(&b)));
        });
    }
    for actors in ACTORS {
        let all = synod(&counters(actors)[0]);
        let fewer = every_second(&all);
        criterion.bench_function(&format!("synod/merge_other_actors/{actors}"), |bencher| {
            in_place(bencher, &fewer, |into| into.merge(black_box(&all)));
        });
    }
}

/// Times `merge` into fresh copies of `start`; making and dropping them does not count.
fn in_place<T: Clone>(bencher: &mut Bencher<'_>, start: &T, merge: impl FnMut(&mut T)) {
    let mut merge = merge;
    bencher.iter_custom(|count| in_batches(count, || vec![start.clone(); BATCH], &mut merge));
}

fn in_batches<T>(count: u64, make: impl Fn() -> Vec<T>, mut work: impl FnMut(&mut T)) -> Duration {
    let mut spent = Duration::ZERO;
    let mut left = count as usize;
    while left > 0 {
        let mut subjects = make();
        subjects.truncate(left);
        left -= subjects.len();
        let started = std::time::Instant::now();
        subjects.iter_mut().for_each(&mut work);
        spent += started.elapsed();
        black_box(subjects);
    }
    spent
}

/// Every hybrid clock reads the same wall clock for every tick; the first line is that reading alone.
fn hybrid(criterion: &mut Criterion) {
    let offset = Duration::from_millis(500);
    let since_epoch = || SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
    criterion.bench_function("wall_clock/read/1", |bencher| bencher.iter(|| black_box(since_epoch())));

    let reading = || WallReading::from_unix(since_epoch()).expect("a clock before 2106");
    let mut clock = HybridClock::new(ActorId::new(1), offset).expect("a small offset");
    criterion.bench_function("synod/tick/1", |bencher| bencher.iter(|| clock.local(reading())));
    let sent = HybridTime::from_u64(clock.now().time.to_u64());
    criterion.bench_function("synod/receive/1", |bencher| {
        bencher.iter(|| clock.receive(black_box(sent), reading()).expect("a time of the past"));
    });

    let clock = uhlc::HLC::default();
    criterion.bench_function("uhlc/tick/1", |bencher| bencher.iter(|| clock.new_timestamp()));
    let sent = clock.new_timestamp();
    criterion.bench_function("uhlc/receive/1", |bencher| {
        bencher.iter(|| clock.update_with_timestamp(black_box(&sent)).expect("a time of the past"));
    });

    let clock = hlc_gen::HlcGenerator::new(500);
    criterion.bench_function("hlc-gen/tick/1", |bencher| bencher.iter(|| clock.next_timestamp()));
    let sent = clock.timestamp();
    criterion.bench_function("hlc-gen/receive/1", |bencher| {
        bencher.iter(|| clock.update(black_box(&sent)).is_ok());
    });
}

fn settings() -> Criterion {
    let times = Criterion::default().without_plots();
    times.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1)).sample_size(30)
}

criterion_group! { name = clocks; config = settings(); targets = compare, merge, hybrid }
criterion_main!(clocks);
