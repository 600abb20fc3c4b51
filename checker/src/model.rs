//! What an object may answer: sequential models for the search.

use std::hash::Hash;

use crate::history::{Action, ValueId};

/// A deterministic sequential object, for [`search`](crate::search::search).
///
/// A step carries what the client asked *and* what it saw; an operation that nobody saw the answer of is a step that
/// allows every answer.
pub trait Model {
    /// The object between two steps. Small and cheap to clone: the search keeps one per configuration it visits.
    type State: Clone + Eq + Hash;
    /// One operation with its observed answer.
    type Step;

    /// The object before the first step.
    fn initial(&self) -> Self::State;

    /// The object after `step`, or none if it cannot answer so in `state`.
    fn apply(&self, state: &Self::State, step: &Self::Step) -> Option<Self::State>;

    /// True if `step` leaves every state as it is in which it is allowed: the search then never tries to put it off.
    ///
    /// It must hold for *every* state. A put of the value that happens to be there is no such step: later on, the same
    /// put would change something. Saying false costs time, saying true wrongly costs correctness.
    fn is_read_only(&self, step: &Self::Step) -> bool {
        let _ = step;
        false
    }
}

/// One key of a key-value store: absent at first, a get returns the value put last.
#[derive(Clone, Copy, Debug, Default)]
pub struct Register;

impl Model for Register {
    type State = Option<ValueId>;
    type Step = Action;

    fn initial(&self) -> Option<ValueId> {
        None
    }

    fn apply(&self, state: &Option<ValueId>, step: &Action) -> Option<Option<ValueId>> {
        match *step {
            Action::Put(value) => Some(Some(value)),
            Action::Get(value) => (value == *state).then_some(value),
        }
    }

    fn is_read_only(&self, step: &Action) -> bool {
        matches!(step, Action::Get(_))
    }
}

/// A register with compare-and-set; absent at first.
#[derive(Clone, Copy, Debug, Default)]
pub struct CasRegister;

/// A step of a [`CasRegister`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CasStep {
    /// Write this value.
    Put(ValueId),
    /// Returned this value.
    Get(Option<ValueId>),
    /// Write `new` if the value is `expected`.
    Cas {
        /// What must be there.
        expected: Option<ValueId>,
        /// What replaces it.
        new: ValueId,
        /// Whether it was there; none if the client does not know.
        swapped: Option<bool>,
    },
}

impl Model for CasRegister {
    type State = Option<ValueId>;
    type Step = CasStep;

    fn initial(&self) -> Option<ValueId> {
        None
    }

    fn apply(&self, state: &Option<ValueId>, step: &CasStep) -> Option<Option<ValueId>> {
        match *step {
            CasStep::Put(value) => Some(Some(value)),
            CasStep::Get(value) => (value == *state).then_some(value),
            CasStep::Cas { expected, new, swapped } => {
                let matches = expected == *state;
                let possible = swapped.is_none_or(|swapped| swapped == matches);
                possible.then_some(if matches { Some(new) } else { *state })
            }
        }
    }

    fn is_read_only(&self, step: &CasStep) -> bool {
        matches!(step, CasStep::Get(_) | CasStep::Cas { swapped: Some(false), .. })
    }
}

/// A counter that starts at zero.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counter;

/// A step of a [`Counter`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CounterStep {
    /// Add `by`, and see the sum.
    Add {
        /// The increment.
        by: u64,
        /// The sum returned; none if the client does not know.
        sum: Option<u64>,
    },
    /// Returned this sum.
    Read(u64),
}

impl Model for Counter {
    type State = u64;
    type Step = CounterStep;

    fn initial(&self) -> u64 {
        0
    }

    fn apply(&self, state: &u64, step: &CounterStep) -> Option<u64> {
        match *step {
            CounterStep::Add { by, sum } => {
                let after = state.wrapping_add(by);
                sum.is_none_or(|sum| sum == after).then_some(after)
            }
            CounterStep::Read(sum) => (sum == *state).then_some(*state),
        }
    }

    fn is_read_only(&self, step: &CounterStep) -> bool {
        matches!(step, CounterStep::Read(_))
    }
}
