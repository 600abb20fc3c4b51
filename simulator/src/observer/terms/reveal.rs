//! **RI9 persist before you reveal** (Raft, figure 2: "updated on stable storage before responding"): no message
//! leaves a node before the state that it reveals is durable there.

use super::{Claim, HardState};
use crate::observer::{Checked, violation};

/// What a node holds durably, as far as a claim asks.
#[derive(Clone, Copy, Debug)]
pub struct Durable {
    /// Term and vote.
    pub hard_state: HardState,
    /// The term of its entry at the index that the claim names.
    pub term_there: Option<u64>,
    /// The term of the leader's entry there.
    pub leader_term_there: Option<u64>,
}

/// A message with this claim leaves `node` for `to`.
///
/// # Errors
/// RI9 if the claim is not covered.
pub fn check(node: usize, to: usize, claim: Claim, durable: Durable) -> Checked {
    let HardState { term: durable_term, vote } = durable.hard_state;
    let covered = match claim {
        Claim::Term(term) => durable_term >= term,
        Claim::Candidate(term) | Claim::Successor(term) | Claim::Leads(term) | Claim::Succeed(term) => {
            durable_term > term || (durable_term == term && vote == Some(node))
        }
        Claim::Vote(term) => durable_term > term || (durable_term == term && vote == Some(to)),
        Claim::Accepted { term, .. } => {
            // In a later term the entries may be gone again, which is no fault of this message.
            durable_term > term
                || (durable_term == term
                    && durable.leader_term_there.is_some()
                    && durable.term_there == durable.leader_term_there)
        }
        Claim::Decided(_) | Claim::Supports(_) => true,
    };
    if covered {
        return Ok(());
    }
    let holds = durable.hard_state;
    let there = durable.term_there;
    Err(violation(
        "RI9",
        format!("n{} tells n{} {claim:?}, and holds durably {holds}, there {there:?}", node + 1, to + 1),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn durable(term: u64, vote: Option<usize>, there: Option<u64>, leader: Option<u64>) -> Durable {
        Durable { hard_state: HardState { term, vote }, term_there: there, leader_term_there: leader }
    }

    #[test]
    fn a_vote_or_an_acknowledgement_that_is_not_durable_is_caught() {
        let vote = Claim::Vote(3);
        assert!(check(0, 1, vote, durable(3, Some(1), None, None)).is_ok());
        assert!(check(0, 1, vote, durable(3, None, None, None)).is_err());
        assert!(check(0, 1, vote, durable(2, Some(1), None, None)).is_err());
        let accepted = Claim::Accepted { term: 3, through: 9 };
        assert!(check(0, 1, accepted, durable(3, None, Some(2), Some(2))).is_ok());
        assert!(check(0, 1, accepted, durable(3, None, Some(1), Some(2))).is_err(), "an old entry there");
        assert!(check(0, 1, accepted, durable(3, None, None, Some(2))).is_err(), "nothing there yet");
        assert!(check(0, 1, Claim::Candidate(3), durable(3, Some(1), None, None)).is_err());
        assert!(check(0, 1, Claim::Leads(3), durable(3, Some(0), None, None)).is_ok());
    }
}
