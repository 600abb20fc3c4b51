//! What tells a lease that is counted wrong from one that is not: a leader loses everybody but a bare quorum, the others
//! run out of patience, and then the quorum loses touch as well, in the ways in which a promise may be misjudged.

use crate::clock::Time;
use crate::fault::Fault;
use crate::nemesis::{between, crash};
use crate::observer::Checked;
use crate::subject::Subject;
use crate::world::{Event, World};

/// What a siege is made of.
pub(crate) const FAULTS: [Fault; 4] =
    [Fault::PartialPartition, Fault::OneWay, Fault::Clog, Fault::CrashRestart];

/// Where a siege happens: seeds in which leaders answer under a lease, and links may be cut.
pub(crate) fn is_possible<S: Subject>(world: &World<S>) -> bool {
    let has = |fault| world.options.faults.has(fault);
    world.options.node.lease_reads.is_some() && world.nodes.len() > 2 && FAULTS.into_iter().all(has)
}

/// The leader keeps a bare quorum, for long enough that the others want another one.
pub(crate) fn begin<S: Subject>(world: &mut World<S>) -> Checked {
    let Some(leader) = world.subject.leader() else { return Ok(()) };
    let mut loyal: Vec<usize> = (0..world.nodes.len()).filter(|node| *node != leader).collect();
    world.rng.shuffle(&mut loyal);
    let away = loyal.split_off(world.subject.quorum_len(world.nodes.len()) - 1);
    let patience = world.options.patience;
    let storm = patience / 4 + world.rng.below(patience * 2);
    world.cut(Fault::PartialPartition, between(&[leader], &away), storm + patience * 3);
    let loyal = loyal.into_iter().map(|node| node as u8).collect();
    world.schedule(storm, Event::Storm { leader: leader as u8, loyal });
    Ok(())
}

/// Nothing reaches the loyal ones any more; what they promised runs out, or they forget it, or the leader hears of it late.
pub(crate) fn storm<S: Subject>(world: &mut World<S>, leader: usize, loyal: &[usize]) -> Checked {
    let patience = world.options.patience;
    let length: Time = patience + world.rng.below(patience * 2);
    world.cut(Fault::OneWay, loyal.iter().map(|node| (leader, *node)).collect(), length);
    match world.rng.below(3) {
        0 => {
            for node in loyal {
                crash(world, *node, Fault::CrashRestart)?;
            }
        }
        1 => {
            let until = world.at + patience / 4 + world.rng.below(patience);
            for node in loyal {
                world.network.clog(*node, leader, until);
            }
        }
        _ => {}
    }
    Ok(())
}
