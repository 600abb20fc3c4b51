//! Recording in memory, one recorder per client.

use crate::history::{Action, ClientId, End, KeyId, Nanos, Operation, Overlap, Sequence, ValueId};
use crate::{History, HistoryError};

/// What one client did, kept while it runs: one push per call and one store per return, no lock.
///
/// Give every client its own and join them with [`Recorder::join`]. An operation that is never ended stays open for
/// ever: that is what a crashed or timed-out client knows.
///
/// # Examples
///
/// ```
/// use synod_checker::{check, CheckOptions, ClientId, KeyId, Nanos, Recorder, ValueId, Verdict};
///
/// let mut recorder = Recorder::new(ClientId(0));
/// let put = recorder.put(KeyId(0), ValueId(1), Nanos(10));
/// recorder.put_ok(put, Nanos(20));
/// let get = recorder.get(KeyId(0), Nanos(30));
/// recorder.get_ok(get, Some(ValueId(1)), Nanos(40));
///
/// let history = Recorder::join([recorder])?;
/// assert_eq!(check(&history, &CheckOptions::default()).verdict, Verdict::Linearizable);
/// # Ok::<(), synod_checker::HistoryError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Recorder {
    client: ClientId,
    operations: Vec<Operation>,
}

/// An operation that was called; give it back when the operation ends.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "an operation that is never ended counts as unknown"]
pub struct Ticket {
    position: usize,
}

impl Recorder {
    /// Nothing recorded yet.
    pub fn new(client: ClientId) -> Recorder {
        Recorder { client, operations: Vec::new() }
    }

    /// The client writes `value`, unique in the run, to `key`.
    pub fn put(&mut self, key: KeyId, value: ValueId, now: Nanos) -> Ticket {
        self.called(key, Action::Put(value), now)
    }

    /// The client reads `key`.
    pub fn get(&mut self, key: KeyId, now: Nanos) -> Ticket {
        self.called(key, Action::Get(None), now)
    }

    /// The put was acknowledged.
    ///
    /// # Panics
    ///
    /// If the ticket is not of a put of this recorder.
    pub fn put_ok(&mut self, ticket: Ticket, now: Nanos) {
        let operation = &mut self.operations[ticket.position];
        assert!(matches!(operation.action(), Action::Put(_)), "the ticket is of a get");
        operation.end_with(End::Ok(now), None);
    }

    /// The get returned `value`, none if the key was absent.
    ///
    /// # Panics
    ///
    /// If the ticket is not of a get of this recorder.
    pub fn get_ok(&mut self, ticket: Ticket, value: Option<ValueId>, now: Nanos) {
        let operation = &mut self.operations[ticket.position];
        assert!(matches!(operation.action(), Action::Get(_)), "the ticket is of a put");
        operation.end_with(End::Ok(now), value);
    }

    /// The operation surely has no effect, now or later.
    pub fn failed(&mut self, ticket: Ticket, now: Nanos) {
        self.operations[ticket.position].end_with(End::Failed(now), None);
    }

    /// The client gave up: the operation may take effect at any time, or never.
    pub fn unknown(&mut self, ticket: Ticket, now: Nanos) {
        self.operations[ticket.position].end_with(End::Unknown(Some(now)), None);
    }

    /// The operations recorded so far, in the order of their calls.
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// The history all these clients made.
    ///
    /// # Errors
    ///
    /// As [`History::new`]: two recorders of one client, a clock that went back, an overlap within a client.
    pub fn join(recorders: impl IntoIterator<Item = Recorder>) -> Result<History, HistoryError> {
        let recorders: Vec<Recorder> = recorders.into_iter().collect();
        let mut operations =
            Vec::with_capacity(recorders.iter().map(|recorder| recorder.operations.len()).sum());
        for recorder in recorders {
            operations.extend_from_slice(&recorder.operations);
        }
        History::new(operations, Overlap::Refuse)
    }

    fn called(&mut self, key: KeyId, action: Action, now: Nanos) -> Ticket {
        let position = self.operations.len();
        let seq = Sequence(position as u64);
        self.operations.push(Operation::new(self.client, seq, key, action, now, End::Unknown(None)));
        Ticket { position }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Outcome, Tally};

    #[test]
    fn an_operation_that_is_never_ended_is_unknown() {
        let mut recorder = Recorder::new(ClientId(4));
        let _lost = recorder.put(KeyId(0), ValueId(1), Nanos(1));
        let refused = recorder.put(KeyId(0), ValueId(2), Nanos(2));
        recorder.failed(refused, Nanos(3));
        let late = recorder.get(KeyId(0), Nanos(4));
        recorder.unknown(late, Nanos(5));
        let read = recorder.get(KeyId(0), Nanos(6));
        recorder.get_ok(read, None, Nanos(7));

        let history = Recorder::join([recorder, Recorder::new(ClientId(5))]).unwrap();
        assert_eq!(history.tally(), Tally { ok: 1, failed: 1, unknown: 2 });
        assert_eq!(history.operations()[0].outcome(), Outcome::Unknown);
        assert_eq!(history.operations()[0].returned(), None);
        assert_eq!(history.operations()[3].seq(), Sequence(3));
    }
}
