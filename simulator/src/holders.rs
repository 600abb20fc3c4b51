//! Who holds a lease, as the world sees it, and the register that holders change.
//!
//! | invariant | what must hold |
//! |---|---|
//! | LI1 | when a node begins to hold the lease, or for longer, no other one holds it by its own clock |
//! | LI2 | tokens rise with every holder |
//! | LI7 | what holders did to the register that checks their tokens is linearizable, whatever clocks do |

use std::collections::{BTreeMap, BTreeSet};

use synod_checker::Nanos;
use synod_checker::model::{Counter, CounterStep};
use synod_checker::search::{Found, Interval, search};
use synod_core::Instant;
use synod_lease::{FencedResource, FencingToken};

use crate::clock::{Clock, Time};
use crate::observer::{Checked, violation};
use crate::rare::{Rare, RareCounts};
use crate::rng::{Chance, Rng};
use crate::subject::{Agenda, Moment, NodeView};

/// What is asked of clocks, and what is judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clocks {
    /// Every clock may drift by so many times what is assumed of it; none: as the faults of a seed have it.
    pub drift: Option<u64>,
    /// Two holders at once are counted and allowed: the register that checks tokens is what is judged.
    pub fenced: bool,
}

impl Clocks {
    /// As the faults of a seed have them; never two holders.
    pub const AS_DRAWN: Clocks = Clocks { drift: None, fenced: false };

    /// More cannot be assumed of leases: clocks that are wrong by more than half.
    pub const DRIFT_MAX: u64 = 20;

    /// What a lease assumes of clocks and how far they really drift, in parts of a million.
    pub(crate) fn draw(self, drawn_ppm: u64, rng: &mut Rng) -> (u64, u64) {
        match self.drift {
            None => (drawn_ppm, drawn_ppm),
            Some(factor) => {
                let assumed = rng.log_between(1_000, 20_000);
                (assumed, assumed * factor.min(Clocks::DRIFT_MAX))
            }
        }
    }
}

/// The holders of one lease.
#[derive(Debug)]
pub(crate) struct Holders {
    fenced: bool,
    /// Until when each node believes that it holds the lease, by its own clock.
    beliefs: Vec<Option<Instant>>,
    /// The token under which it was told that it may act.
    tokens: Vec<Option<FencingToken>>,
    clocks: Vec<Option<Clock>>,
    /// The highest token that anybody was told, and who.
    highest: (FencingToken, usize),
    /// The last node that gained the lease.
    last: Option<usize>,
    register: Register,
    pub(crate) grants: u64,
    pub(crate) rare: RareCounts,
}

impl Holders {
    pub(crate) fn new(nodes: usize, fenced: bool, reach_mean: Time) -> Holders {
        Holders {
            fenced,
            beliefs: vec![None; nodes],
            tokens: vec![None; nodes],
            clocks: vec![None; nodes],
            highest: (FencingToken(0), 0),
            last: None,
            register: Register::new(reach_mean),
            grants: 0,
            rare: RareCounts::default(),
        }
    }

    /// A node holds the lease until then, by its own clock, whether or not it has a token yet.
    pub(crate) fn believes_until(&mut self, moment: Moment, until: Instant) -> Checked {
        let node = moment.node;
        if until <= moment.now {
            self.beliefs[node] = None;
            return Ok(());
        }
        if self.beliefs[node] == Some(until) {
            return Ok(());
        }
        self.beliefs[node] = Some(until);
        self.judge_alone(moment, until)
    }

    /// A node is told that it holds the lease and may act, perhaps of one that has ended by the time it looks.
    pub(crate) fn held(&mut self, moment: Moment, until: Instant, token: FencingToken) -> Checked {
        let node = moment.node;
        self.believes_until(moment, until)?;
        if self.beliefs[node].is_none() {
            return Ok(());
        }
        self.grants += 1;
        self.tokens[node] = Some(token);
        let (highest, theirs) = self.highest;
        if (token < highest || token == highest && theirs != node) && !self.fenced {
            let what = format!("n{} holds under {token}, after {highest} of n{}", node + 1, theirs + 1);
            return Err(violation("LI2", what));
        }
        self.highest = self.highest.max((token, node));
        if self.last.is_some_and(|last| last != node) {
            self.rare[Rare::LeaseHandedOver] += 1;
        }
        self.last = Some(node);
        Ok(())
    }

    fn judge_alone(&mut self, moment: Moment, until: Instant) -> Checked {
        let node = moment.node;
        for (other, belief) in self.beliefs.iter().enumerate() {
            let (Some(theirs), Some(clock)) = (belief, self.clocks[other]) else { continue };
            if other == node || clock.read(moment.at) >= *theirs {
                continue;
            }
            if self.fenced {
                self.rare[Rare::LeaseTwoHolders] += 1;
                continue;
            }
            let shows = clock.read(moment.at);
            let what = format!(
                "n{} holds until {until}, and so does n{}: its clock shows {shows}, and it holds until {theirs}",
                node + 1,
                other + 1
            );
            return Err(violation("LI1", what));
        }
        Ok(())
    }

    /// A node is told that it holds the lease no more.
    pub(crate) fn lost(&mut self, node: usize) {
        self.beliefs[node] = None;
        self.tokens[node] = None;
    }

    /// A node's life ended.
    pub(crate) fn crashed(&mut self, node: usize) {
        self.tokens[node] = None;
        if self.beliefs[node].take().is_some() {
            self.rare[Rare::LeaseHolderCrashed] += 1;
        }
    }

    /// True if the node believes that it holds the lease.
    pub(crate) fn believes(&self, node: usize) -> bool {
        self.beliefs[node].is_some()
    }

    pub(crate) fn leader(&self) -> Option<usize> {
        self.beliefs.iter().position(Option::is_some)
    }

    pub(crate) fn see(&mut self, nodes: &[NodeView]) {
        for (clock, view) in self.clocks.iter_mut().zip(nodes) {
            *clock = Some(view.clock);
        }
    }

    /// A node that believes that it holds the lease begins to change the register: it looks at its clock, and
    /// what it asks for leaves whenever it does.
    pub(crate) fn act(&mut self, at: Time, node: usize, rng: &mut Rng, agenda: &mut Agenda) {
        if let (Some(until), Some(token), Some(clock)) =
            (self.beliefs[node], self.tokens[node], self.clocks[node])
            && clock.read(at) < until
        {
            self.register.begin(at, token, rng, agenda);
        }
    }

    /// The wake-up of what is on its way to the register; false if it was somebody else's.
    pub(crate) fn wake(&mut self, at: Time, client: u32, rng: &mut Rng, agenda: &mut Agenda) -> bool {
        if client < FIRST_ACT {
            return false;
        }
        if !self.register.arrive(at, client, rng, agenda) {
            self.rare[Rare::StaleTokenRefused] += 1;
        }
        true
    }

    /// The register, over the whole run.
    pub(crate) fn finish(&self) -> Checked {
        self.register.check()
    }
}

/// Clients of this number and above are requests on their way to the register.
const FIRST_ACT: u32 = 1 << 20;

/// A register on a machine of its own: a holder reads it, and writes one more. Whoever else comes in between makes one
/// of the two be lost.
#[derive(Debug)]
struct Register {
    resource: FencedResource<u64>,
    /// How long a request is on its way.
    reach_mean: Time,
    under_way: BTreeMap<u32, Act>,
    /// A holder waits for its answer before it asks again.
    busy: BTreeSet<FencingToken>,
    next: u32,
    history: Vec<Interval<CounterStep>>,
}

#[derive(Clone, Copy, Debug)]
struct Act {
    token: FencingToken,
    called: Time,
    /// What it will write, once it has read.
    sum: Option<u64>,
}

impl Register {
    fn new(reach_mean: Time) -> Register {
        Register {
            resource: FencedResource::new(0),
            reach_mean,
            under_way: BTreeMap::new(),
            busy: BTreeSet::new(),
            next: FIRST_ACT,
            history: Vec::new(),
        }
    }

    fn begin(&mut self, at: Time, token: FencingToken, rng: &mut Rng, agenda: &mut Agenda) {
        if self.history.len() < HISTORY_MAX && self.busy.insert(token) {
            self.next += 1;
            self.under_way.insert(self.next, Act { token, called: at, sum: None });
            agenda.wakes.push((at + self.reach(rng), self.next));
        }
    }

    /// A holder may be stopped between its look at the clock and its act, for longer than its lease.
    fn reach(&self, rng: &mut Rng) -> Time {
        let mean = if rng.chance(Chance::percent(10)) { self.reach_mean * 100 } else { self.reach_mean };
        1 + rng.exponential(mean)
    }

    /// A request arrives; false if its token is refused.
    fn arrive(&mut self, at: Time, client: u32, rng: &mut Rng, agenda: &mut Agenda) -> bool {
        let Some(act) = self.under_way.remove(&client) else { return true };
        let Ok(contents) = self.resource.admit(act.token) else {
            self.busy.remove(&act.token);
            return false;
        };
        match act.sum {
            None => {
                let sum = Some(*contents + 1);
                self.under_way.insert(client, Act { sum, ..act });
                agenda.wakes.push((at + self.reach(rng), client));
            }
            Some(sum) => {
                *contents = sum;
                let step = CounterStep::Add { by: 1, sum: Some(sum) };
                self.history.push(Interval { step, call: Nanos(act.called), end: Some(Nanos(at)) });
                self.busy.remove(&act.token);
            }
        }
        true
    }

    fn check(&self) -> Checked {
        let mut steps_left = 1 << 22;
        match search(&Counter, &self.history, &mut steps_left, 64 << 20) {
            Found::Linearization(_) => Ok(()),
            Found::Nothing(end) => {
                let of = self.history.len();
                let blocked = self.history[end.blocked];
                let what = format!(
                    "{} of {of} changes of the register have an order, not {blocked:?}",
                    end.linearized
                );
                Err(violation("LI7", what))
            }
            Found::Unknown(_) => Err(violation("LI7", "the history of the register was too much to check")),
        }
    }
}

/// Changes of the register that a run makes at most.
const HISTORY_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_that_another_holder_came_in_between_is_refused_and_without_the_check_it_is_seen() {
        for (second, linearizable) in [(FencingToken(2), true), (FencingToken(1), false)] {
            let mut register = Register::new(1);
            let (mut rng, mut agenda) = (Rng::new(1), Agenda::default());
            register.begin(0, FencingToken(1), &mut rng, &mut agenda);
            let first = register.next;
            assert!(register.arrive(10, first, &mut rng, &mut agenda));
            // Another holder reads and writes; with an equal token the register cannot tell the two apart.
            register.busy.clear();
            register.begin(20, second, &mut rng, &mut agenda);
            let other = register.next;
            assert!(register.arrive(30, other, &mut rng, &mut agenda));
            assert!(register.arrive(40, other, &mut rng, &mut agenda));
            assert_eq!(register.arrive(50, first, &mut rng, &mut agenda), !linearizable);
            assert_eq!(register.check().is_ok(), linearizable);
        }
    }
}
