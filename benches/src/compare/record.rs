//! What a client did, kept while it runs: cheaper than the history it becomes.

use synod_checker::{Action, ClientId, End, KeyId, Nanos, Operation, Outcome, Sequence, ValueId};

/// Operations of one client in the order of their calls.
///
/// 32 bytes each, in pieces: a vector that grows would move what it has, and touch as much memory again, in
/// the middle of the load.
#[derive(Debug)]
pub struct Record {
    client: ClientId,
    pieces: Vec<Vec<Line>>,
}

/// Operations in a piece: 64 KiB.
const PIECE: usize = 2_048;

#[derive(Clone, Copy, Debug)]
struct Line {
    call: Nanos,
    /// When it ended; [`OPEN`] until then.
    returned: Nanos,
    /// The value written or returned; 0 is none, and no client writes it.
    value: ValueId,
    key: KeyId,
    put: bool,
    outcome: Outcome,
}

const OPEN: Nanos = Nanos(u64::MAX);
const NONE: ValueId = ValueId(0);

impl Record {
    /// Nothing done yet.
    #[must_use]
    pub fn new(client: ClientId) -> Record {
        Record { client, pieces: Vec::new() }
    }

    /// The client writes `value`, which is not 0, to `key`.
    pub fn put(&mut self, key: KeyId, value: ValueId, call: Nanos) {
        assert_ne!(value, NONE, "values are counted from 1");
        self.push(Line { call, returned: OPEN, value, key, put: true, outcome: Outcome::Unknown });
    }

    /// The client reads `key`.
    pub fn get(&mut self, key: KeyId, call: Nanos) {
        self.push(Line { call, returned: OPEN, value: NONE, key, put: false, outcome: Outcome::Unknown });
    }

    /// The operation called last has ended. `read` is what it read, if it is a get.
    pub fn end(&mut self, outcome: Outcome, read: Option<ValueId>, returned: Nanos) {
        let last = self.pieces.last_mut().and_then(|piece| piece.last_mut());
        let last = last.expect("an operation is called before it ends");
        last.outcome = outcome;
        last.returned = returned;
        if !last.put {
            last.value = read.unwrap_or(NONE);
        }
    }

    /// How many operations were called.
    #[must_use]
    pub fn len(&self) -> usize {
        let full = self.pieces.len().saturating_sub(1) * PIECE;
        full + self.pieces.last().map_or(0, Vec::len)
    }

    /// True if none was.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// The keys of its puts, with repetitions.
    pub fn keys_written(&self) -> impl Iterator<Item = u32> + '_ {
        self.pieces.iter().flatten().filter(|line| line.put).map(|line| line.key.0)
    }

    /// Appends its operations to those of a history.
    pub fn append_to(&self, operations: &mut Vec<Operation>) {
        operations.reserve(self.len());
        for (seq, line) in self.pieces.iter().flatten().enumerate() {
            let action = match (line.put, line.value) {
                (true, value) => Action::Put(value),
                (false, NONE) => Action::Get(None),
                (false, value) => Action::Get(Some(value)),
            };
            let end = match line.outcome {
                Outcome::Ok => End::Ok(line.returned),
                Outcome::Failed => End::Failed(line.returned),
                Outcome::Unknown => End::Unknown((line.returned != OPEN).then_some(line.returned)),
            };
            let seq = Sequence(seq as u64);
            operations.push(Operation::new(self.client, seq, line.key, action, line.call, end));
        }
    }

    fn push(&mut self, line: Line) {
        match self.pieces.last_mut() {
            Some(piece) if piece.len() < PIECE => piece.push(line),
            _ => {
                let mut piece = Vec::with_capacity(PIECE);
                piece.push(line);
                self.pieces.push(piece);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_becomes_the_operations_that_were_recorded() {
        assert_eq!(size_of::<Line>(), 32);
        let mut record = Record::new(ClientId(3));
        record.put(KeyId(1), ValueId(5), Nanos(10));
        record.end(Outcome::Ok, None, Nanos(20));
        record.get(KeyId(1), Nanos(20));
        record.end(Outcome::Ok, Some(ValueId(5)), Nanos(30));
        record.get(KeyId(2), Nanos(30));
        record.end(Outcome::Failed, None, Nanos(40));
        record.put(KeyId(2), ValueId(6), Nanos(40));
        record.end(Outcome::Unknown, None, Nanos(50));
        record.get(KeyId(3), Nanos(60));

        let mut operations = Vec::new();
        record.append_to(&mut operations);
        let operation = |seq, key, action, call, end| {
            Operation::new(ClientId(3), Sequence(seq), KeyId(key), action, Nanos(call), end)
        };
        let expected = [
            operation(0, 1, Action::Put(ValueId(5)), 10, End::Ok(Nanos(20))),
            operation(1, 1, Action::Get(Some(ValueId(5))), 20, End::Ok(Nanos(30))),
            operation(2, 2, Action::Get(None), 30, End::Failed(Nanos(40))),
            operation(3, 2, Action::Put(ValueId(6)), 40, End::Unknown(Some(Nanos(50)))),
            operation(4, 3, Action::Get(None), 60, End::Unknown(None)),
        ];
        assert_eq!(operations, expected);
        assert_eq!(record.keys_written().collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn pieces_lose_nothing_where_they_meet() {
        let mut record = Record::new(ClientId(0));
        assert!(record.is_empty());
        let count = 2 * PIECE + 1;
        for number in 0..count as u64 {
            record.put(KeyId(0), ValueId(number + 1), Nanos(number));
            record.end(Outcome::Ok, None, Nanos(number));
            assert_eq!(record.len() as u64, number + 1);
        }
        let mut operations = Vec::new();
        record.append_to(&mut operations);
        assert!(
            operations
                .iter()
                .zip(1..)
                .all(|(operation, value)| operation.action() == Action::Put(ValueId(value)))
        );
        assert_eq!(operations.len(), count);
    }
}
