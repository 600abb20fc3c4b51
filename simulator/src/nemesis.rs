//! What goes wrong, and when: faults at random, and faults that aim.

use crate::clock::{MICROSECOND, Time};
use crate::fault::Fault;
use crate::observer::Checked;
use crate::subject::Subject;
use crate::world::World;

/// One fault of a kind that the seed allows.
pub(crate) fn strike<S: Subject>(world: &mut World<S>) -> Checked {
    let alone = world.nodes.len() == 1;
    let strikes = |fault: &Fault| STRIKES.contains(fault) && !(alone && OF_LINKS.contains(fault));
    let kinds: Vec<Fault> = world.options.faults.iter().filter(strikes).collect();
    if kinds.is_empty() {
        return Ok(());
    }
    let kind = world.rng.pick(&kinds);
    let node = target(world);
    let length = length(world);
    match kind {
        Fault::Partition => partition(world, length),
        Fault::OneWay => one_way(world, node, length),
        Fault::PartialPartition => partial(world, length),
        Fault::Clog => clog(world, length),
        Fault::Crash | Fault::CrashRestart | Fault::Outage => return crash(world, node, kind),
        Fault::Pause => world.pause(node, length),
        Fault::ClockJump => {
            let forward = world.rng.log_between(world.options.patience / 8, world.options.patience * 20);
            world.jump_clock(node, forward);
        }
        kind if Fault::DESTRUCTIVE.contains(&kind) => {
            let nodes: Vec<usize> =
                (0..world.nodes.len()).filter(|node| world.options.damaged[*node]).collect();
            if !nodes.is_empty() && world.rng.below(DAMAGE_RARELY) == 0 {
                let node = world.rng.pick(&nodes);
                world.damage(node, kind);
            }
        }
        _ => {}
    }
    Ok(())
}

/// A node is damaged once in so many strikes: mostly the last thing that it goes through.
const DAMAGE_RARELY: u64 = 8;

/// One fault aimed at whoever leads, or at an election.
pub(crate) fn harass<S: Subject>(world: &mut World<S>) -> Checked {
    let faults = world.options.faults;
    let patience = world.options.patience;
    let leader = world.subject.leader();
    let somebody = world.rng.index(world.nodes.len());
    let length = patience + world.rng.below(patience * 2);
    let alone = world.nodes.len() == 1;
    match world.rng.below(8) {
        // The leader, or somebody, is gone for an instant.
        0..3 if faults.has(Fault::CrashRestart) => {
            let node = if world.rng.coin() { leader.unwrap_or(somebody) } else { somebody };
            crash(world, node, Fault::CrashRestart)?;
            // Often two at a time: a quorum forgets together.
            if world.rng.below(3) == 0 {
                let other = world.rng.index(world.nodes.len());
                crash(world, other, Fault::CrashRestart)?;
            }
            Ok(())
        }
        // The leader keeps a random minority.
        3..5 if faults.has(Fault::Partition) && !alone => {
            let Some(leader) = leader else { return Ok(()) };
            let mut others: Vec<usize> = (0..world.nodes.len()).filter(|node| *node != leader).collect();
            world.rng.shuffle(&mut others);
            let kept = world.rng.index(world.nodes.len() / 2 + 1).min(others.len());
            let away = others.split_off(kept);
            others.push(leader);
            world.cut(Fault::Partition, between(&others, &away), length);
            Ok(())
        }
        // Somebody who is not the leader campaigns.
        5 if faults.has(Fault::ClockJump) => {
            if Some(somebody) != leader {
                world.jump_clock(somebody, patience * 2);
            }
            Ok(())
        }
        // The leader sleeps until it is replaced, and wakes up believing.
        6 if faults.has(Fault::Pause) => {
            let sleeper = leader.unwrap_or(somebody);
            let length = length + patience;
            world.pause(sleeper, length);
            let others: Vec<usize> = (0..world.nodes.len()).filter(|other| *other != sleeper).collect();
            match world.rng.below(4) {
                // What was answered to it before it fell asleep reaches it as it wakes up.
                0 if faults.has(Fault::Clog) => {
                    let until = world.at + length - patience / 16;
                    for other in others {
                        world.network.clog(other, sleeper, until);
                    }
                }
                // Nobody can tell it that it was replaced: what it hears was under way when it fell asleep.
                1 | 2 if faults.has(Fault::OneWay) => {
                    let links = others.into_iter().map(|other| (other, sleeper)).collect();
                    let longer = length + world.rng.below(patience);
                    world.cut(Fault::OneWay, links, longer);
                }
                _ => {}
            }
            Ok(())
        }
        // The leader speaks and does not hear, or hears and does not speak.
        7 if faults.has(Fault::OneWay) && !alone => {
            one_way(world, leader.unwrap_or(somebody), length);
            Ok(())
        }
        _ => strike(world),
    }
}

/// A node: often the one that leads.
fn target<S: Subject>(world: &mut World<S>) -> usize {
    let somebody = world.rng.index(world.nodes.len());
    if world.rng.below(3) == 0 { world.subject.leader().unwrap_or(somebody) } else { somebody }
}

/// Around the time a node is patient; sometimes much shorter or longer.
fn length<S: Subject>(world: &mut World<S>) -> Time {
    let patience = world.options.patience;
    world.rng.log_between((patience / 16).max(MICROSECOND), patience * 16)
}

pub(crate) fn crash<S: Subject>(world: &mut World<S>, node: usize, kind: Fault) -> Checked {
    if world.may_crash(node) { world.crash_and_return(node, kind) } else { Ok(()) }
}

fn partition<S: Subject>(world: &mut World<S>, length: Time) {
    let count = world.nodes.len();
    let mut order: Vec<usize> = (0..count).collect();
    world.rng.shuffle(&mut order);
    let links = match world.rng.below(4) {
        // One alone.
        0 => between(&order[..1], &order[1..]),
        // A ring in which every node sees a majority, and no two the same.
        1 if count >= 5 => {
            let reach = count / 4 + 1;
            let far = |from: usize, to: usize| {
                let steps = (to + count - from) % count;
                steps.min(count - steps) > reach
            };
            all_pairs(count)
                .filter(|(from, to)| far(*from, *to))
                .map(|(from, to)| (order[from], order[to]))
                .collect()
        }
        // The leader and a minority against the rest.
        2 if world.subject.leader().is_some() => {
            let leader = world.subject.leader().unwrap_or(0);
            order.retain(|node| *node != leader);
            order.insert(0, leader);
            let kept = 1 + world.rng.index(count / 2);
            between(&order[..kept], &order[kept..])
        }
        _ => {
            let size = 1 + world.rng.index(count - 1);
            between(&order[..size], &order[size..])
        }
    };
    world.cut(Fault::Partition, links, length);
}

fn one_way<S: Subject>(world: &mut World<S>, node: usize, length: Time) {
    let others = (0..world.nodes.len()).filter(|other| *other != node);
    let links = match world.rng.below(3) {
        // It only sends.
        0 => others.map(|other| (other, node)).collect(),
        // It only receives.
        1 => others.map(|other| (node, other)).collect(),
        // One link.
        _ => {
            let others: Vec<usize> = others.collect();
            let other = world.rng.pick(&others);
            vec![if world.rng.coin() { (node, other) } else { (other, node) }]
        }
    };
    world.cut(Fault::OneWay, links, length);
}

/// Two that cannot hear each other and a third that hears both, or two groups with one bridge.
fn partial<S: Subject>(world: &mut World<S>, length: Time) {
    let count = world.nodes.len();
    let mut order: Vec<usize> = (0..count).collect();
    world.rng.shuffle(&mut order);
    let links = if count >= 4 && world.rng.coin() {
        let (bridge, rest) = (1, &order[1..]);
        let size = bridge + world.rng.index(rest.len() - 1);
        between(&rest[..size], &rest[size..])
    } else {
        between(&order[..1], &order[1..2])
    };
    world.cut(Fault::PartialPartition, links, length);
}

fn clog<S: Subject>(world: &mut World<S>, length: Time) {
    let count = world.nodes.len();
    let node = world.rng.index(count);
    let until = world.at + length;
    let links: Vec<(usize, usize)> = match world.rng.below(3) {
        0 => all_pairs(count).collect(),
        1 => all_pairs(count).filter(|(from, _)| *from == node).collect(),
        _ => all_pairs(count).filter(|_| world.rng.coin()).collect(),
    };
    world.note_world(|| format!("clog: {} links", links.len()));
    for (from, to) in links {
        // Opened one by one, in random order.
        let until = until + world.rng.below(length / 4 + 1);
        world.network.clog(from, to, until);
    }
}

/// The kinds that happen at a moment; the others are in the weather, the disks and the clocks.
const STRIKES: [Fault; 14] = [
    Fault::Partition,
    Fault::OneWay,
    Fault::PartialPartition,
    Fault::Clog,
    Fault::Crash,
    Fault::CrashRestart,
    Fault::Outage,
    Fault::Pause,
    Fault::ClockJump,
    Fault::BitRot,
    Fault::MisdirectedWrite,
    Fault::LostWrite,
    Fault::StaleSegment,
    Fault::TruncatedFile,
];

/// Those of them that a cluster of one cannot suffer.
const OF_LINKS: [Fault; 4] = [Fault::Partition, Fault::OneWay, Fault::PartialPartition, Fault::Clog];

fn all_pairs(count: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..count).flat_map(move |from| (0..count).filter(move |to| *to != from).map(move |to| (from, to)))
}

/// Every link between the two groups, both ways.
pub(crate) fn between(one: &[usize], other: &[usize]) -> Vec<(usize, usize)> {
    one.iter().flat_map(|a| other.iter().flat_map(move |b| [(*a, *b), (*b, *a)])).collect()
}
