//! Random runs of a small cluster: loss, repetition, reordering, cuts, slow disks, crashes. The harness checks
//! safety after every step; then everything heals, and the cluster must decide again.
//!
//! The simulator does this at scale and with the whole replica; this is the quick first look.

mod harness;

use std::time::Duration;

use harness::{Cluster, HEARTBEAT, TIMEOUT};
use synod_core::{Input, LogCall, LogEvent, ReadId, ReadMode, Role};
use synod_multipaxos::MultiPaxos;

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

fn run(seed: u64, count: u64) -> (u64, u64) {
    let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let config = MultiPaxos::config()
        .votes_to_all(seed % 2 == 1)
        .accept_entries_max(3)
        .window_entries_max(6)
        .accept_bytes_max(400)
        .tail_bytes_max(600);
    let mut cluster = Cluster::with(count, config, &[]);
    let (loss, repeat, reorder) = (dice.roll(30), dice.roll(20), dice.roll(50));
    let crashes = dice.roll(3);
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
                    if synod_core::Machine::next_deadline(cluster.paxos(id))
                        .is_some_and(|at| at <= cluster.now)
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
            92..95 if cluster.node(id).paxos.is_some() && cluster.role(id) == Role::Leader => {
                let floor = cluster.up().iter().map(|id| cluster.decided(*id)).max().unwrap();
                reads.0.push((id, step, floor));
                cluster.step(id, Input::Call(LogCall::Read { id: ReadId(step), mode: ReadMode::Barrier }));
            }
            95 if dice.chance(30 * crashes) => cluster.crash(id),
            96 if cluster.node(id).paxos.is_none() => cluster.start(id),
            97 if dice.chance(20) => {
                cluster.cut_one_way(id, 1 + dice.roll(count));
            }
            98 => cluster.heal(),
            _ => {}
        }
        if cluster.node(id).paxos.is_some() {
            reads.check(&mut cluster, id, seed);
        }
    }
    cluster.heal();
    for id in 1..=count {
        if cluster.node(id).paxos.is_none() {
            cluster.start(id);
        }
    }
    cluster.advance(12 * TIMEOUT);
    let leader = cluster.leader().unwrap_or_else(|| panic!("seed {seed}: nobody leads"));
    cluster.propose(leader, &["last"]);
    cluster.advance(20 * HEARTBEAT);
    let want = cluster.payloads(leader);
    assert_eq!(want.last().map(String::as_str), Some("last"), "seed {seed}");
    for id in 1..=count {
        assert_eq!(cluster.payloads(id), want, "seed {seed}: n{id}");
        assert_eq!(
            cluster.paxos(id).counters().rejected,
            0,
            "seed {seed}: {:?}",
            cluster.paxos(id).counters()
        );
    }
    (want.len() as u64, cluster.promised(leader).round)
}

#[test]
fn three_replicas_stay_safe_under_random_faults_and_recover() {
    let (mut decided, mut rounds) = (0, 0);
    for seed in 0..150 {
        let (commands, round) = run(seed, 3);
        decided += commands;
        rounds += round;
    }
    assert!(decided > 150 * 10, "the runs decided {decided} commands: they test little");
    assert!(rounds > 150 * 2, "the runs went through {rounds} rounds: they test little");
}

#[test]
fn five_replicas_stay_safe_under_random_faults_and_recover() {
    for seed in 1000..1050 {
        run(seed, 5);
    }
}
