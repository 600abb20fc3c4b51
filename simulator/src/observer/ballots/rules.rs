//! The invariants of protocols that vote slot by slot in ballots (the Paxos family), each as one function.
//!
//! | name | what must hold | source |
//! |---|---|---|
//! | M1 | for each slot at most one value is ever chosen: a replication quorum has durably voted for it in one ballot | Paxos Made Simple, 2.2 |
//! | M2 | once a value is chosen in a ballot, every proposal of a higher ballot for that slot is that value | P2b, P2c |
//! | M3 | nobody votes in a lower ballot than it has promised, and a promise never falls, across restarts | P1a |
//! | M4 | a ballot has one value for a slot, and it is its own proposer that proposes it | 2.2 |
//! | M5 | only chosen values are learned, and a watermark passes over no hole | 2.3 |
//! | PX5 | a ballot belongs to one life of one node; nothing is proposed in it before an election quorum promised | 2.2 |
//! | P1b | a promise tells every vote in a lower ballot that its sender has cast | 2.2, phase 1 |
//! | RI9 | what a message reveals is durable at its sender | 2.4 |
//!
//! Where ballots have fast rounds, each of the two counts as a ballot for M1 and M2, M4 is about the classic one alone,
//! and [`super::fast`] has the rest.

use synod_core::Stamp;

use super::{Choice, Proposal};
use crate::observer::{Checked, violation};

/// M1.
///
/// # Errors
/// M1 if another value was chosen before.
pub fn one_choice(slot: u64, known: Option<Choice>, now: Choice) -> Checked {
    match known {
        Some(known) if known.entry != now.entry => Err(violation(
            "M1",
            format!("slot {slot}: {} chose a value, and {} chose another", known.round, now.round),
        )),
        _ => Ok(()),
    }
}

/// M2.
///
/// # Errors
/// M2 if a proposal of a higher ballot is not for the chosen value.
pub fn stable(slot: u64, choice: Choice, proposal: &Proposal) -> Checked {
    if proposal.round <= choice.round || proposal.entry == choice.entry {
        return Ok(());
    }
    Err(violation(
        "M2",
        format!("slot {slot}: chosen in {}, and {} proposes another value", choice.round, proposal.round),
    ))
}

/// M3: a hard state follows another.
///
/// # Errors
/// M3 if a promise falls.
pub fn promise_follows(node: usize, before: Stamp, after: Stamp) -> Checked {
    if after >= before {
        return Ok(());
    }
    Err(violation("M3", format!("n{} promised {before} and then {after}", node + 1)))
}

/// M3: a vote is cast.
///
/// # Errors
/// M3 if a higher ballot was promised, or this one was not.
pub fn vote(node: usize, slot: u64, ballot: Stamp, promised: Stamp) -> Checked {
    if ballot == promised {
        return Ok(());
    }
    Err(violation(
        "M3",
        format!("n{} votes in ballot {ballot} for slot {slot} and has promised {promised}", node + 1),
    ))
}

/// M4: a value is written or sent under a ballot.
///
/// # Errors
/// M4 if it is another one than before, or new and not from the ballot's proposer.
pub fn one_value(node: usize, slot: u64, ballot: Stamp, known: Option<u64>, entry: u64) -> Checked {
    let owner = ballot.low == node as u64 + 1;
    match known {
        Some(known) if known == entry => Ok(()),
        Some(_) => {
            Err(violation("M4", format!("n{}: ballot {ballot} has two values for slot {slot}", node + 1)))
        }
        None if owner => Ok(()),
        None => Err(violation(
            "M4",
            format!("n{} has a value of ballot {ballot} for slot {slot} that nobody proposed", node + 1),
        )),
    }
}

/// M5: a value is taken for chosen.
///
/// # Errors
/// M5 if it is not.
pub fn learned(node: usize, slot: u64, chosen: Option<u64>, entry: u64) -> Checked {
    match chosen {
        Some(chosen) if chosen == entry => Ok(()),
        Some(_) => Err(violation("M5", format!("n{}: slot {slot} was chosen with another value", node + 1))),
        None => Err(violation("M5", format!("n{} takes slot {slot} for chosen, and it is not", node + 1))),
    }
}

/// PX5: a node speaks in a ballot of its own.
///
/// # Errors
/// PX5 if another life, or another node, owns it.
pub fn owner(node: usize, ballot: Stamp, life: u64, first_used_in: u64) -> Checked {
    if ballot.low != node as u64 + 1 {
        return Err(violation("PX5", format!("n{} uses ballot {ballot}", node + 1)));
    }
    if life != first_used_in {
        return Err(violation(
            "PX5",
            format!("n{} uses ballot {ballot} in life {life}, and did in life {first_used_in}", node + 1),
        ));
    }
    Ok(())
}

/// RI9: a message reveals a promise.
///
/// # Errors
/// RI9 if it is not durable.
pub fn promise_durable(node: usize, ballot: Stamp, durable: Stamp) -> Checked {
    if durable >= ballot {
        return Ok(());
    }
    Err(violation(
        "RI9",
        format!("n{} tells of ballot {ballot} and has durably promised {durable}", node + 1),
    ))
}

#[cfg(test)]
mod tests {
    use super::super::fast::Round;
    use super::*;

    fn ballot(round: u64) -> Stamp {
        Stamp { high: round, low: 1 }
    }

    #[test]
    fn a_second_choice_and_a_straying_proposal_are_caught() {
        let chosen = Choice { round: Round::classic(ballot(2)), entry: 7 };
        assert!(one_choice(1, Some(chosen), Choice { round: Round::classic(ballot(3)), entry: 7 }).is_ok());
        assert!(one_choice(1, Some(chosen), Choice { round: Round::classic(ballot(1)), entry: 8 }).is_err());
        let proposal = |round, entry| Proposal { round: Round::classic(ballot(round)), entry, voters: 0 };
        assert!(stable(1, chosen, &proposal(1, 8)).is_ok(), "a lower ballot may have proposed anything");
        assert!(stable(1, chosen, &proposal(3, 8)).is_err());
    }

    #[test]
    fn votes_and_values_out_of_order_are_caught() {
        assert!(vote(0, 1, ballot(2), ballot(2)).is_ok());
        assert!(vote(0, 1, ballot(2), ballot(3)).is_err() && vote(0, 1, ballot(3), ballot(2)).is_err());
        assert!(promise_follows(0, ballot(3), ballot(2)).is_err());
        assert!(one_value(0, 1, ballot(2), None, 7).is_ok());
        assert!(one_value(1, 1, ballot(2), None, 7).is_err(), "another node's ballot");
        assert!(one_value(1, 1, ballot(2), Some(8), 7).is_err());
        assert!(learned(0, 1, Some(7), 7).is_ok());
        assert!(learned(0, 1, None, 7).is_err() && learned(0, 1, Some(8), 7).is_err());
        assert!(owner(0, ballot(2), 4, 4).is_ok());
        assert!(owner(0, ballot(2), 4, 3).is_err() && owner(1, ballot(2), 4, 4).is_err());
        assert!(promise_durable(0, ballot(2), ballot(1)).is_err());
    }
}
