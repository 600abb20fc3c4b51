//! Random runs of a small cluster: loss, repetition, reordering, cuts, slow disks, crashes. The harness checks
//! safety after every step; then everything heals, and the cluster must decide again.
//!
//! The simulator does this at scale and with the whole replica; this is the quick first look.

mod harness;

use std::time::Duration;

use harness::{Cluster, HEARTBEAT, TIMEOUT};
use synod_core::{Input, LogCall, LogEvent, ReadId, ReadMode, Role};
use synod_zab::Zab;

/// A generator of its own (xorshift*), so that a seed means the same everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % sides
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.roll(100) < percent
    }
}

/// The reads that are open, with what was decided anywhere when each was asked.
#[derive(Default)]
struct OpenReads(Vec<(u64, u64, u64)>);

impl OpenReads {
    fn check(&mut self, cluster: &mut Cluster, id: u64, seed: u64) {
        for event in cluster.take_events(id) {
            if let LogEvent::ReadReady { id: ReadId(read), index } = event {
                let (_, _, floor) = self.0.iter().find(|(node, r, _)| (*node, *r) == (id, read)).unwrap();
                assert!(index.0 >= *floor, "seed {seed}: read {read} at n{id} is stale: {index} < {floor}");
            }
        }
    }
}

fn run(seed: u64, count: u64, snapshots: bool) -> (u64, u64) {
    let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let config = Zab::config().proposal_entries_max(3).window_entries_max(6).tail_bytes_max(600);
    let mut cluster = Cluster::with(count, config, &[]);
    let (loss, repeat, reorder) = (dice.roll(30), dice.roll(20), dice.roll(50));
    let crashes = dice.roll(3);
    if snapshots {
        (cluster.snapshots, cluster.parcels) = (true, Some(Vec::new()));
    }
    let mut reads = OpenReads::default();
    let mut proposals = 0;
    for step in 0..3000 {
        let id = 1 + dice.roll(count);
        match dice.roll(100) {
            0..50 if !cluster.network.is_empty() => {
                let at = if dice.chance(reorder) { dice.roll(cluster.network.len() as u64) } else { 0 };
                let letter = cluster.network.remove(usize::try_from(at).unwrap()).unwrap();
                if dice.chance(repeat) {
                    cluster.network.push_back(letter.clone());
                }
                if !dice.chance(loss) {
                    cluster.deliver(letter);
                }
            }
            0..65 => {
                cluster.persist_one(id);
            }
            65..70 => {
                cluster.load_one(id);
            }
            70..84 => {
                cluster.now += Duration::from_millis(1 + dice.roll(6));
                for id in cluster.up() {
                    if synod_core::Machine::next_deadline(cluster.zab(id)).is_some_and(|at| at <= cluster.now)
                    {
                        cluster.step(id, Input::Tick);
                    }
                }
            }
            84..92 => {
                if let Some(leader) = cluster.leader() {
                    proposals += 1;
                    cluster.propose(leader, &[&proposals.to_string()]);
                }
            }
            // Asked of anybody who believes that it leads: stale leaders too.
            92..95 if cluster.node(id).zab.is_some() && cluster.role(id) == Role::Leader => {
                let floor = cluster.up().iter().map(|id| cluster.decided(*id)).max().unwrap();
                reads.0.push((id, step, floor));
                cluster.step(id, Input::Call(LogCall::Read { id: ReadId(step), mode: ReadMode::Barrier }));
            }
            95 if dice.chance(30 * crashes) => cluster.crash(id),
            96 if cluster.node(id).zab.is_none() => cluster.start(id),
            97 if dice.chance(20) => {
                cluster.cut_one_way(id, 1 + dice.roll(count));
            }
            98 => cluster.heal(),
            // Snapshots are on their way for any time, and through crashes: what was staged is offered after a start.
            96 | 99 if snapshots => {
                let parcels = cluster.parcels.as_mut().unwrap();
                if !parcels.is_empty() {
                    let parcel = parcels.swap_remove(dice.roll(parcels.len() as u64) as usize);
                    let arrives = cluster.node(parcel.to).zab.is_some() && !dice.chance(loss);
                    if arrives {
                        cluster.offer(parcel.to, parcel.meta.clone());
                    }
                    let taken = arrives && cluster.decided(parcel.to) >= parcel.meta.index.0;
                    cluster.parcel_ended(&parcel, taken);
                }
            }
            97 if snapshots && cluster.node(id).zab.is_some() => {
                let decided = cluster.decided(id);
                cluster.compact(id, decided, decided.saturating_sub(dice.roll(5)));
            }
            _ => {}
        }
        if cluster.node(id).zab.is_some() {
            reads.check(&mut cluster, id, seed);
        }
    }
    cluster.heal();
    for id in 1..=count {
        if cluster.node(id).zab.is_none() {
            cluster.start(id);
        }
    }
    for parcel in cluster.parcels.take().unwrap_or_default() {
        cluster.parcel_ended(&parcel, false);
    }
    cluster.advance(20 * TIMEOUT);
    let leader = cluster.leader().unwrap_or_else(|| panic!("seed {seed}: nobody leads"));
    cluster.propose(leader, &["last"]);
    cluster.advance(20 * HEARTBEAT);
    let decided = cluster.decided(leader);
    assert_eq!(cluster.payloads(leader).last().map(String::as_str), Some("last"), "seed {seed}");
    for id in 1..=count {
        assert_eq!(cluster.decided(id), decided, "seed {seed}: n{id}");
        let counters = cluster.zab(id).counters();
        assert_eq!(
            (counters.rejected, counters.snapshots_refused),
            (0, 0),
            "seed {seed}: n{id} {counters:?}"
        );
    }
    (decided, cluster.current(leader))
}

#[test]
fn three_replicas_stay_safe_under_random_faults_and_recover() {
    let (mut decided, mut epochs) = (0, 0);
    for seed in 0..150 {
        let (commands, epoch) = run(seed, 3, false);
        decided += commands;
        epochs += epoch;
    }
    assert!(decided > 150 * 10, "the runs decided {decided} commands: they test little");
    assert!(epochs > 150 * 2, "the runs went through {epochs} epochs: they test little");
}

#[test]
fn five_replicas_stay_safe_under_random_faults_and_recover() {
    for seed in 1000..1050 {
        run(seed, 5, false);
    }
}

#[test]
fn snapshots_that_arrive_at_any_time_take_nothing_back() {
    let (from, seeds) = (0, 150);
    for seed in from..from + seeds {
        run(seed, 3, true);
    }
}
