//! What clients did and saw: operations, and the history they form.

use std::fmt;

use thiserror::Error;

/// All operations of a run, in any order.
///
/// Costs 48 bytes an operation. Build it from [`Recorder`](crate::Recorder)s, from operations, or from a file with
/// [`read_history`](crate::read_history).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    operations: Vec<Operation>,
}

impl History {
    /// A history of these operations.
    ///
    /// # Errors
    ///
    /// An operation that returns before it is called, two operations with the same client and sequence number, two
    /// operations of one client that overlap (unless `overlap` allows it), or more than [`History::OPERATIONS_MAX`].
    pub fn new(operations: Vec<Operation>, overlap: Overlap) -> Result<History, HistoryError> {
        let history = History { operations };
        history.validate(overlap)?;
        Ok(history)
    }

    /// The largest number of operations a history may hold.
    pub const OPERATIONS_MAX: usize = (u32::MAX - 1) as usize;

    /// The operations, in the order in which they were given.
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// How many operations there are.
    pub fn len(&self) -> usize {
        self.operations.len()
    }

    /// True if nobody did anything.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// How many operations ended in each way.
    pub fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        for operation in &self.operations {
            match operation.outcome {
                Outcome::Ok => tally.ok += 1,
                Outcome::Failed => tally.failed += 1,
                Outcome::Unknown => tally.unknown += 1,
            }
        }
        tally
    }

    /// Positions of the operations grouped by key, keys ascending, original order within a key.
    pub(crate) fn by_key(&self) -> Partition {
        Partition::new(&self.operations, |operation| u64::from(operation.key.0))
    }

    /// Replaces the value one successful get returned; the caller holds a position of such a get.
    pub(crate) fn replace_returned(&mut self, position: usize, value: Option<ValueId>) {
        let operation = &mut self.operations[position];
        assert!(operation.is_ok_get(), "only a successful get has a returned value");
        operation.value = value.unwrap_or(ValueId(0));
        operation.has_value = value.is_some();
    }

    fn validate(&self, overlap: Overlap) -> Result<(), HistoryError> {
        if self.operations.len() > History::OPERATIONS_MAX {
            return Err(HistoryError::TooManyOperations);
        }
        for (position, operation) in self.operations.iter().enumerate() {
            if operation.returned().is_some_and(|returned| returned < operation.call) {
                return Err(HistoryError::ReturnBeforeCall { position });
            }
        }
        let clients = Partition::new(&self.operations, |operation| u64::from(operation.client.0));
        let mut own = Vec::new();
        for mine in clients.groups() {
            own.clear();
            own.extend_from_slice(mine);
            self.validate_client(&mut own, overlap)?;
        }
        Ok(())
    }

    fn validate_client(&self, own: &mut [u32], overlap: Overlap) -> Result<(), HistoryError> {
        let operation = |position: u32| &self.operations[position as usize];
        own.sort_by_key(|&position| operation(position).seq);
        for pair in own.windows(2) {
            if operation(pair[0]).seq == operation(pair[1]).seq {
                return Err(HistoryError::DuplicateSequence {
                    position: pair[1] as usize,
                    earlier: pair[0] as usize,
                });
            }
        }
        if overlap == Overlap::Allow {
            return Ok(());
        }
        own.sort_by_key(|&position| operation(position).call);
        // The last operation whose end is known: an open one does not forbid its client to go on.
        let mut last: Option<u32> = None;
        for &position in own.iter() {
            if let Some(earlier) = last {
                let ended = operation(earlier).returned();
                if ended.is_some_and(|ended| operation(position).call < ended) {
                    return Err(HistoryError::ClientOverlap {
                        position: position as usize,
                        earlier: earlier as usize,
                    });
                }
            }
            if operation(position).outcome != Outcome::Unknown {
                last = Some(position);
            }
        }
        Ok(())
    }
}

/// One operation of one client: 48 bytes, `Copy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    client: ClientId,
    key: KeyId,
    seq: Sequence,
    value: ValueId,
    call: Nanos,
    returned: Nanos,
    put: bool,
    has_value: bool,
    has_returned: bool,
    outcome: Outcome,
}

impl Operation {
    /// An operation `client` called at `call` as its number `seq`, and how it ended.
    ///
    /// A get that did not end well has returned nothing: a value given with it is dropped.
    pub fn new(
        client: ClientId,
        seq: Sequence,
        key: KeyId,
        action: Action,
        call: Nanos,
        end: End,
    ) -> Operation {
        let (outcome, returned) = match end {
            End::Ok(at) => (Outcome::Ok, Some(at)),
            End::Failed(at) => (Outcome::Failed, Some(at)),
            End::Unknown(at) => (Outcome::Unknown, at),
        };
        let (put, value) = match action {
            Action::Put(value) => (true, Some(value)),
            Action::Get(value) => (false, value.filter(|_| outcome == Outcome::Ok)),
        };
        Operation {
            client,
            key,
            seq,
            value: value.unwrap_or(ValueId(0)),
            call,
            returned: returned.unwrap_or(Nanos(0)),
            put,
            has_value: value.is_some(),
            has_returned: returned.is_some(),
            outcome,
        }
    }

    /// Who called it.
    pub fn client(&self) -> ClientId {
        self.client
    }

    /// Its number at that client.
    pub fn seq(&self) -> Sequence {
        self.seq
    }

    /// The key it is about.
    pub fn key(&self) -> KeyId {
        self.key
    }

    /// What was asked, with the value written or returned.
    pub fn action(&self) -> Action {
        let value = self.has_value.then_some(self.value);
        match (self.put, value) {
            (true, Some(value)) => Action::Put(value),
            (true, None) => unreachable!("a put is built with its value"),
            (false, value) => Action::Get(value),
        }
    }

    /// When the client called.
    pub fn call(&self) -> Nanos {
        self.call
    }

    /// When the client got an answer or gave up, if that was noted.
    pub fn returned(&self) -> Option<Nanos> {
        self.has_returned.then_some(self.returned)
    }

    /// What the client knows about the effect.
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// The end of the interval in which it took effect: none if that is open for ever.
    pub fn effect_end(&self) -> Option<Nanos> {
        self.returned().filter(|_| self.outcome != Outcome::Unknown)
    }

    pub(crate) fn is_ok_get(&self) -> bool {
        !self.put && self.outcome == Outcome::Ok
    }

    pub(crate) fn end_with(&mut self, end: End, value: Option<ValueId>) {
        let action = match self.action() {
            Action::Put(written) => Action::Put(written),
            Action::Get(_) => Action::Get(value),
        };
        *self = Operation::new(self.client, self.seq, self.key, action, self.call, end);
    }
}

/// What an operation asks of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Write this value.
    Put(ValueId),
    /// Read: the value returned, none if the key was absent.
    Get(Option<ValueId>),
}

/// How an operation ended, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It took effect and its answer arrived at this time.
    Ok(Nanos),
    /// It surely had no effect, known at this time.
    Failed(Nanos),
    /// It may take effect at any time after its call, or never; the time at which the client gave up is for readers
    /// only.
    Unknown(Option<Nanos>),
}

/// What a client knows about the effect of its operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It took effect between its call and its return.
    Ok,
    /// It surely had no effect.
    Failed,
    /// It may take effect at any time after its call, or never.
    Unknown,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Outcome::Ok => "ok",
            Outcome::Failed => "failed",
            Outcome::Unknown => "unknown",
        })
    }
}

/// Whether the operations of one client may overlap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overlap {
    /// A client waits for each answer before it calls again: an overlap is a recording mistake.
    #[default]
    Refuse,
    /// A client number stands for several callers at once.
    Allow,
}

/// How many operations ended in each way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Took effect.
    pub ok: u64,
    /// Surely had no effect.
    pub failed: u64,
    /// Nobody knows.
    pub unknown: u64,
}

/// A client: a caller that waits for one answer at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u32);

/// The number of an operation at its client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(pub u64);

/// A key, by number; [`Names`](crate::Names) turn it into the string of the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub u32);

/// A value, by number; [`Names`](crate::Names) turn it into the string of the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ValueId(pub u64);

/// Nanoseconds since an origin that all clients of the history share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nanos(pub u64);

/// Why operations do not form a history. Positions count from 0 in the order given.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HistoryError {
    /// An answer before the question.
    #[error("operation {position} returns before its call")]
    ReturnBeforeCall {
        /// The operation.
        position: usize,
    },
    /// A client numbered two operations alike.
    #[error("operation {position} has the client and sequence number of operation {earlier}")]
    DuplicateSequence {
        /// The operation.
        position: usize,
        /// The one that has its number.
        earlier: usize,
    },
    /// A client called again before an operation that is known to have ended did so.
    #[error("operation {position} is called before operation {earlier} of the same client returned")]
    ClientOverlap {
        /// The operation.
        position: usize,
        /// The one that had not ended.
        earlier: usize,
    },
    /// More than [`History::OPERATIONS_MAX`].
    #[error("more than {} operations", History::OPERATIONS_MAX)]
    TooManyOperations,
}

/// Positions of operations, grouped: 4 bytes an operation and 4 a group.
pub(crate) struct Partition {
    positions: Vec<u32>,
    ends: Vec<u32>,
}

impl Partition {
    fn new(operations: &[Operation], group: impl Fn(&Operation) -> u64) -> Partition {
        let group_max = operations.iter().map(&group).max().unwrap_or(0);
        let dense = (2 * operations.len() + 1_024) as u64;
        if group_max < dense {
            counted(operations, group, group_max as usize)
        } else {
            sorted(operations, group)
        }
    }

    /// Every group that holds an operation.
    pub(crate) fn groups(&self) -> impl Iterator<Item = &[u32]> {
        let mut start = 0;
        self.ends.iter().filter_map(move |&end| {
            let group = &self.positions[start..end as usize];
            start = end as usize;
            (!group.is_empty()).then_some(group)
        })
    }
}

/// A counting sort, for groups numbered densely.
fn counted(operations: &[Operation], group: impl Fn(&Operation) -> u64, group_max: usize) -> Partition {
    let mut ends = vec![0u32; group_max + 1];
    for operation in operations {
        ends[group(operation) as usize] += 1;
    }
    let mut start = 0;
    for end in &mut ends {
        start += std::mem::replace(end, start);
    }
    let mut positions = vec![0u32; operations.len()];
    for (position, operation) in operations.iter().enumerate() {
        let end = &mut ends[group(operation) as usize];
        positions[*end as usize] = position as u32;
        *end += 1;
    }
    Partition { positions, ends }
}

fn sorted(operations: &[Operation], group: impl Fn(&Operation) -> u64) -> Partition {
    let mut positions: Vec<u32> = (0..operations.len() as u32).collect();
    positions.sort_by_cached_key(|&position| group(&operations[position as usize]));
    let group_of = |position: u32| group(&operations[position as usize]);
    let mut ends: Vec<u32> = (1..positions.len())
        .filter(|&i| group_of(positions[i - 1]) != group_of(positions[i]))
        .map(|i| i as u32)
        .collect();
    ends.push(positions.len() as u32);
    Partition { positions, ends }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(client: u32, seq: u64, key: u32, call: u64, end: End) -> Operation {
        Operation::new(ClientId(client), Sequence(seq), KeyId(key), Action::Get(None), Nanos(call), end)
    }

    #[test]
    fn an_operation_costs_48_bytes() {
        assert_eq!(size_of::<Operation>(), 48);
    }

    #[test]
    fn a_get_that_did_not_end_well_returned_nothing() {
        let action = Action::Get(Some(ValueId(7)));
        let end = End::Unknown(Some(Nanos(3)));
        let operation = Operation::new(ClientId(0), Sequence(0), KeyId(0), action, Nanos(1), end);
        assert_eq!(operation.action(), Action::Get(None));
        assert_eq!(operation.returned(), Some(Nanos(3)));
        assert_eq!(operation.effect_end(), None);
    }

    #[test]
    fn mistakes_of_a_recording_are_refused_with_both_positions() {
        let refused = |operations| History::new(operations, Overlap::Refuse).unwrap_err();
        assert_eq!(
            refused(vec![get(0, 0, 0, 9, End::Ok(Nanos(8)))]),
            HistoryError::ReturnBeforeCall { position: 0 }
        );
        let twice = vec![get(0, 5, 0, 3, End::Ok(Nanos(4))), get(0, 5, 0, 1, End::Ok(Nanos(2)))];
        assert_eq!(refused(twice), HistoryError::DuplicateSequence { position: 1, earlier: 0 });
        let overlapping = vec![get(0, 1, 0, 3, End::Ok(Nanos(6))), get(0, 0, 0, 1, End::Ok(Nanos(4)))];
        assert_eq!(refused(overlapping.clone()), HistoryError::ClientOverlap { position: 0, earlier: 1 });
        assert!(History::new(overlapping, Overlap::Allow).is_ok());
    }

    #[test]
    fn a_client_may_go_on_after_an_operation_of_unknown_outcome_and_at_the_time_of_its_last_return() {
        let operations = vec![
            get(0, 0, 0, 1, End::Unknown(Some(Nanos(9)))),
            get(0, 1, 0, 2, End::Ok(Nanos(4))),
            get(0, 2, 0, 4, End::Ok(Nanos(5))),
        ];
        assert!(History::new(operations, Overlap::Refuse).is_ok());
    }

    #[test]
    fn dense_and_sparse_keys_are_partitioned_alike() {
        for spread in [1, 1_000_000] {
            let operations: Vec<Operation> = [3, 1, 3, 0, 1]
                .iter()
                .enumerate()
                .map(|(i, key)| get(i as u32, 0, key * spread, 0, End::Ok(Nanos(1))))
                .collect();
            let history = History::new(operations, Overlap::Refuse).unwrap();
            let partition = history.by_key();
            let groups: Vec<&[u32]> = partition.groups().collect();
            assert_eq!(groups, [&[3][..], &[1, 4], &[0, 2]]);
        }
        assert_eq!(History::default().by_key().groups().count(), 0);
    }
}
