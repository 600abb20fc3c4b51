//! **CL7 exactly once** and **X2 equal state**: every command takes effect at most once, the acknowledged ones
//! exactly once with the reply that was given, those that surely failed never, those of an ordered session in
//! order; and every replica goes through the same states.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use synod_core::{ClientId, RequestId};

use super::{Checked, violation};

/// Everything that was ever applied, once, in order, whoever was first.
#[derive(Debug, Default)]
pub struct AppliedOnce {
    /// Index and state hash of each applied command.
    applied: Vec<(u64, u64)>,
    ops: Vec<Op>,
    /// Commands that carry no operation, by their ids.
    empties: BTreeSet<RequestKey>,
    /// Commands of ordered sessions that were issued and not applied or given up, in order.
    ordered: BTreeMap<ClientId, VecDeque<u64>>,
    /// Commands that took effect, each with an earlier one of its session that had not ended then.
    overtaken: Vec<(u64, u64)>,
}

/// A command's name, without what changes from one proposal of it to the next.
type RequestKey = (u64, u64);

#[derive(Clone, Copy, Debug, Default)]
struct Op {
    /// Its place among the applied commands, from 1; 0 while it is not applied.
    position: u64,
    end: End,
    /// An ordered session has gone past it.
    passed: bool,
}

/// What a client knows of its operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum End {
    /// It waits.
    #[default]
    Open,
    /// Acknowledged.
    Done,
    /// Surely without effect.
    Failed,
    /// Nobody waits, and it may still take effect. The session goes on without it.
    GivenUp,
    /// Its node crashed: its session will not go past it.
    Orphaned,
}

impl AppliedOnce {
    /// A new operation: its number.
    pub fn issue(&mut self) -> u64 {
        self.ops.push(Op::default());
        self.ops.len() as u64 - 1
    }

    /// The operation is a command of this ordered session, after all earlier ones.
    pub fn issue_ordered(&mut self, client: ClientId, op: u64) {
        self.ordered.entry(client).or_default().push_back(op);
    }

    /// How many commands were applied.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.applied.len() as u64
    }

    /// True if none was.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.applied.is_empty()
    }

    /// A node applied its `position`-th command (from 0).
    ///
    /// # Errors
    /// X2 if another node came to another state there, CL7 if the command should not have taken effect.
    pub fn applied(
        &mut self,
        node: usize,
        position: u64,
        index: u64,
        chain: u64,
        request: RequestId,
        op: Option<u64>,
    ) -> Checked {
        if let Some(known) = self.applied.get(position as usize) {
            if *known == (index, chain) {
                return Ok(());
            }
            return Err(violation(
                "X2",
                format!(
                    "n{}: command {position} was applied at {index}, another replica's at {} or to another state",
                    node + 1,
                    known.0
                ),
            ));
        }
        self.applied.push((index, chain));
        let Some(op) = op else {
            if self.empties.insert((request.client.0, request.sequence.0)) {
                return Ok(());
            }
            return Err(violation("CL7", format!("{request} took effect twice")));
        };
        let Some(known) = self.ops.get_mut(op as usize) else {
            return Err(violation("CL7", format!("operation {op}, which nobody issued, took effect")));
        };
        if known.position > 0 {
            return Err(violation("CL7", format!("operation {op} took effect twice")));
        }
        if known.end == End::Failed {
            return Err(violation("CL7", format!("operation {op} was said to have failed and took effect")));
        }
        if known.passed {
            return Err(violation(
                "CL7",
                format!("operation {op} took effect after a later one of its session"),
            ));
        }
        known.position = position + 1;
        self.ordered_applied(request.client, op)
    }

    /// A node took over a state in which `count` commands were applied.
    ///
    /// # Errors
    /// X2 if nobody went through that state.
    pub fn restored(&self, node: usize, count: u64, chain: u64) -> Checked {
        let known =
            if count == 0 { Some(0) } else { self.applied.get(count as usize - 1).map(|(_, chain)| *chain) };
        if known == Some(chain) {
            return Ok(());
        }
        Err(violation(
            "X2",
            format!("n{} took over a state of {count} commands that nobody else had", node + 1),
        ))
    }

    fn ordered_applied(&mut self, client: ClientId, op: u64) -> Checked {
        let Some(session) = self.ordered.get_mut(&client) else { return Ok(()) };
        while let Some(earlier) = session.pop_front() {
            if earlier == op {
                return Ok(());
            }
            let skipped = &mut self.ops[earlier as usize];
            skipped.passed = skipped.position == 0;
            if skipped.passed {
                self.overtaken.push((op, earlier));
            }
        }
        Err(violation("CL7", format!("operation {op} took effect in a session that it was not issued in")))
    }

    /// A flush ends, and clients were told what it brought: what a session has gone past must have ended, at
    /// the latest in the flush that went past it.
    ///
    /// # Errors
    /// CL7 if it has not.
    pub fn flushed(&mut self) -> Checked {
        for (op, earlier) in self.overtaken.drain(..) {
            if matches!(self.ops[earlier as usize].end, End::Open | End::Orphaned) {
                let what =
                    format!("operation {op} of an ordered session took effect before operation {earlier}");
                return Err(violation("CL7", what));
            }
        }
        Ok(())
    }

    /// A client is told what became of its operation.
    ///
    /// # Errors
    /// CL7 if that is not so.
    pub fn ended(&mut self, op: u64, end: End) -> Checked {
        let known = &mut self.ops[op as usize];
        known.end = end;
        match end {
            End::Done if known.position == 0 => {
                Err(violation("CL7", format!("operation {op} was acknowledged and did not take effect")))
            }
            End::Failed if known.position > 0 => {
                Err(violation("CL7", format!("operation {op} took effect and is said to have failed")))
            }
            _ => Ok(()),
        }
    }

    /// Where an operation was applied, from 0.
    #[must_use]
    pub fn position(&self, op: u64) -> Option<u64> {
        self.ops[op as usize].position.checked_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use synod_core::Sequence;

    use super::*;

    fn request(client: u64, sequence: u64) -> RequestId {
        RequestId { client: ClientId(client), sequence: Sequence(sequence), first_incomplete: Sequence(1) }
    }

    #[test]
    fn a_second_effect_a_false_answer_and_another_state_are_caught() {
        let mut once = AppliedOnce::default();
        let (a, b, c) = (once.issue(), once.issue(), once.issue());
        assert!(once.applied(0, 0, 5, 77, request(1, 1), Some(a)).is_ok());
        assert!(once.applied(1, 0, 5, 77, request(1, 1), Some(a)).is_ok());
        assert_eq!(once.applied(2, 0, 5, 78, request(1, 1), Some(a)).unwrap_err().invariant, "X2");
        assert!(once.ended(a, End::Done).is_ok());
        assert!(once.ended(b, End::Done).is_err());
        assert!(once.ended(c, End::Failed).is_ok());
        assert!(once.applied(0, 1, 6, 79, request(1, 3), Some(c)).is_err());
        assert!(once.applied(0, 2, 7, 80, request(1, 1), Some(a)).is_err());
    }

    #[test]
    fn an_ordered_session_may_leave_out_what_was_given_up_and_nothing_else() {
        let mut once = AppliedOnce::default();
        let ops: Vec<u64> = (0..4).map(|_| once.issue()).collect();
        for op in &ops {
            once.issue_ordered(ClientId(9), *op);
        }
        assert!(once.ended(ops[0], End::GivenUp).is_ok());
        assert!(once.applied(0, 0, 1, 1, request(9, 2), Some(ops[1])).is_ok());
        assert!(once.flushed().is_ok());
        assert!(once.applied(0, 1, 2, 2, request(9, 4), Some(ops[3])).is_ok());
        assert!(once.flushed().is_err(), "2 was open");
        assert!(once.applied(0, 2, 3, 3, request(9, 1), Some(ops[0])).is_err(), "0 was passed");
    }
}
