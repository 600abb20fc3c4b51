//! The fast exact test of a register whose written values are unique: Gibbons and Korach's zones.
//!
//! The put of a value and the gets that returned it form a *cluster*; in any linearization a cluster is one unbroken
//! run. So if some operation of cluster A returned before some operation of cluster B was called, all of A comes
//! before all of B, and the history is linearizable exactly if no two clusters have to precede each other (and no get
//! precedes or lacks its put). A cluster precedes another if its first return is before the other's last call, so two
//! numbers per cluster, its *zone*, are enough, and a sort finds any contradiction.
//!
//! Puts of unknown outcome that nobody read are left out: taking an unread put out of a linearization leaves one.
//! Those that were read have no return of their own. The absent key is a cluster whose put came before all time.

use crate::check::Reason;
use crate::hash::FixedMap;
use crate::history::{Action, Nanos, Operation, Outcome, ValueId};

/// What the test says of the operations of one key.
pub(crate) enum Zoned {
    Linearizable,
    NotLinearizable(Box<Reason>),
    /// Two puts write one value, so zones say nothing.
    NotUnique,
}

/// Tables that serve one key after the other.
#[derive(Default)]
pub(crate) struct Zones {
    clusters: Vec<Cluster>,
    by_value: FixedMap<ValueId, u32>,
    forward: Vec<u32>,
}

impl Zones {
    /// Tests the operations of one key, given by their positions, in any order.
    pub(crate) fn test(&mut self, operations: &[Operation], positions: &[u32]) -> Zoned {
        self.clusters.clear();
        self.by_value.clear();
        let mut absent_last: Option<&Operation> = None;
        for &position in positions {
            let operation = &operations[position as usize];
            match operation.action() {
                Action::Put(value) => {
                    let cluster = self.cluster_of(value);
                    if cluster.put != NONE {
                        return Zoned::NotUnique;
                    }
                    cluster.put = position;
                }
                Action::Get(_) if operation.outcome() != Outcome::Ok => {}
                Action::Get(Some(value)) => {
                    let cluster = self.cluster_of(value);
                    cluster.include(position, operation);
                    cluster.live = true;
                }
                Action::Get(None) => {
                    if absent_last.is_none_or(|last| last.call() < operation.call()) {
                        absent_last = Some(operation);
                    }
                }
            }
        }
        for cluster in &mut self.clusters {
            if let Some(reason) = cluster.close(operations) {
                return Zoned::NotLinearizable(Box::new(reason));
            }
        }
        let reason = absent_last.and_then(|get| self.seen_before(operations, get));
        match reason.or_else(|| self.contradiction(operations)) {
            Some(reason) => Zoned::NotLinearizable(Box::new(reason)),
            None => Zoned::Linearizable,
        }
    }

    fn cluster_of(&mut self, value: ValueId) -> &mut Cluster {
        let next = self.clusters.len() as u32;
        let number = *self.by_value.entry(value).or_insert(next);
        if number == next {
            self.clusters.push(Cluster::EMPTY);
        }
        &mut self.clusters[number as usize]
    }

    /// A value that somebody had for sure before `get` found the key absent.
    fn seen_before(&self, operations: &[Operation], get: &Operation) -> Option<Reason> {
        let live = self.clusters.iter().filter(|cluster| cluster.live);
        let seen =
            live.filter(|cluster| cluster.first_end < get.call()).min_by_key(|cluster| cluster.first_end)?;
        let operation = |position: u32| operations[position as usize];
        Some(Reason::AbsentAfterPut {
            get: *get,
            put: operation(seen.put),
            seen: operation(seen.first_ended),
        })
    }

    /// Two clusters that would have to precede each other.
    fn contradiction(&mut self, operations: &[Operation]) -> Option<Reason> {
        let clusters = &self.clusters;
        let cluster = |number: u32| &clusters[number as usize];
        self.forward.clear();
        self.forward
            .extend((0..clusters.len() as u32).filter(|&n| cluster(n).live && cluster(n).is_forward()));
        self.forward.sort_unstable_by_key(|&number| cluster(number).first_end);

        for pair in self.forward.windows(2) {
            let (early, late) = (cluster(pair[0]), cluster(pair[1]));
            if late.first_end < early.last_call {
                return Some(early.contradicts(late, operations));
            }
        }
        // Forward zones are now known to be disjoint: only the last that starts before a backward zone can hold it.
        for backward in clusters.iter().filter(|cluster| cluster.live && !cluster.is_forward()) {
            let after =
                self.forward.partition_point(|&number| cluster(number).first_end < backward.last_call);
            if let Some(&number) = after.checked_sub(1).and_then(|last| self.forward.get(last)) {
                let forward = cluster(number);
                if backward.first_end < forward.last_call {
                    return Some(forward.contradicts(backward, operations));
                }
            }
        }
        None
    }
}

/// The put of a value and the gets that returned it; operations are positions.
struct Cluster {
    put: u32,
    /// The first return, and of which operation.
    first_end: Nanos,
    first_ended: u32,
    /// The last call, and of which operation.
    last_call: Nanos,
    last_called: u32,
    /// A linearization has to hold it: its put is known to have taken effect, or its value was read.
    live: bool,
}

impl Cluster {
    const EMPTY: Cluster = Cluster {
        put: NONE,
        first_end: NEVER,
        first_ended: NONE,
        last_call: Nanos(0),
        last_called: NONE,
        live: false,
    };

    fn include(&mut self, position: u32, operation: &Operation) {
        let end = operation.effect_end().unwrap_or(NEVER);
        if end < self.first_end || self.first_ended == NONE {
            (self.first_end, self.first_ended) = (end, position);
        }
        if operation.call() > self.last_call || self.last_called == NONE {
            (self.last_call, self.last_called) = (operation.call(), position);
        }
    }

    /// Adds the put, once all gets are there; says what is wrong with the cluster on its own.
    fn close(&mut self, operations: &[Operation]) -> Option<Reason> {
        let read = self.live.then(|| operations[self.first_ended as usize]);
        let put = (self.put != NONE).then(|| operations[self.put as usize]);
        match (read, put) {
            (None, None) => unreachable!("a cluster is made for a put or a get"),
            (Some(get), None) => return Some(Reason::NeverWritten { get }),
            (Some(get), Some(put)) if put.outcome() == Outcome::Failed => {
                return Some(Reason::FailedPut { get, put });
            }
            (Some(get), Some(put)) if self.first_end < put.call() => {
                return Some(Reason::BeforePut { get, put });
            }
            (_, Some(put)) => {
                self.live |= put.outcome() == Outcome::Ok;
                self.include(self.put, &put);
            }
        }
        None
    }

    /// Some operation of it returned before another was called: nothing else fits between the two.
    fn is_forward(&self) -> bool {
        self.first_end < self.last_call
    }

    fn contradicts(&self, other: &Cluster, operations: &[Operation]) -> Reason {
        assert!(
            self.first_end < other.last_call && other.first_end < self.last_call,
            "each precedes the other"
        );
        let operation = |position: u32| operations[position as usize];
        Reason::Contradiction {
            puts: [operation(self.put), operation(other.put)],
            first_then_second: [operation(self.first_ended), operation(other.last_called)],
            second_then_first: [operation(other.first_ended), operation(self.last_called)],
        }
    }
}

/// Later than every call: the end of an operation that is open for ever.
const NEVER: Nanos = Nanos(u64::MAX);

/// No operation: a history holds fewer than `u32::MAX`.
const NONE: u32 = u32::MAX;
