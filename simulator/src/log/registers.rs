//! The state machine of the full replica: registers that remember every command.

use std::io::{self, Read, Write};

use bytes::Bytes;
use synod_core::{
    Applied, Kind, LogIndex, Outputs, RequestId, SnapshotSource, StateMachine, StateMachineError,
};

use crate::hash::mix;
use crate::observer::agreement::digest_of;

/// A few registers. Keeps what was applied, in order, for the observer.
#[derive(Debug, Default)]
pub struct Registers {
    values: Vec<u64>,
    applied: Vec<AppliedCommand>,
    /// How many commands a snapshot stands for.
    skipped: u64,
    chain: u64,
}

/// A command as it was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppliedCommand {
    /// Where in the log.
    pub index: LogIndex,
    /// Whose.
    pub request: RequestId,
    /// The operation that it carries; `None` for an empty command.
    pub op: Option<u64>,
    /// The hash of the entry.
    pub entry: u64,
    /// The hash of everything applied so far: the state, in short.
    pub chain: u64,
}

impl Registers {
    /// What was applied since the state was taken over from a snapshot, in order.
    #[must_use]
    pub fn applied(&self) -> &[AppliedCommand] {
        &self.applied
    }

    /// How many commands were applied before that.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// The hash of everything applied so far.
    #[must_use]
    pub fn chain(&self) -> u64 {
        self.chain
    }
}

/// A write, as the payload of a command: the operation's number, the register, and filling.
#[must_use]
pub(super) fn write_payload(op: u64, register: u8, filling: usize) -> Bytes {
    let mut payload = Vec::with_capacity(WRITE_LEN_MIN + filling);
    payload.extend_from_slice(&op.to_le_bytes());
    payload.push(register);
    payload.resize(WRITE_LEN_MIN + filling, 0xA5);
    Bytes::from(payload)
}

/// The operation of a write.
#[must_use]
pub(super) fn op_of(write: &[u8; WRITE_LEN_MIN]) -> u64 {
    let mut op = [0; 8];
    op.copy_from_slice(&write[..8]);
    u64::from_le_bytes(op)
}

/// A query for a register.
#[must_use]
pub(super) fn read_query(register: u8) -> Bytes {
    Bytes::copy_from_slice(&[register])
}

/// The answer to a query: the operation that wrote the register last.
#[must_use]
pub(super) fn read_answer(answer: &[u8]) -> Option<u64> {
    let value = answer.first_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    value.checked_sub(1)
}

/// The reply to a write that was applied as number `position`.
#[must_use]
pub(super) fn reply(op: u64, position: u64) -> Bytes {
    let mut reply = [0; 16];
    reply[..8].copy_from_slice(&op.to_le_bytes());
    reply[8..].copy_from_slice(&position.to_le_bytes());
    Bytes::copy_from_slice(&reply)
}

/// The shortest write.
pub(super) const WRITE_LEN_MIN: usize = 9;

impl StateMachine for Registers {
    fn apply(&mut self, batch: &[Applied<'_>], out: &mut Outputs) -> Result<(), StateMachineError> {
        for applied in batch {
            let entry = digest_of(Kind::Command, applied.reign, applied.request, applied.payload);
            self.chain = mix(mix(self.chain, entry), applied.index.0);
            let write = applied.payload.first_chunk::<WRITE_LEN_MIN>();
            let op = write.map(|write| {
                let (op, register) = (op_of(write), usize::from(write[8]));
                if register >= self.values.len() {
                    self.values.resize(register + 1, 0);
                }
                self.values[register] = op + 1;
                op
            });
            let position = self.skipped + self.applied.len() as u64;
            out.reply(op.map_or_else(Bytes::new, |op| reply(op, position)));
            self.applied.push(AppliedCommand {
                index: applied.index,
                request: applied.request,
                op,
                entry,
                chain: self.chain,
            });
        }
        Ok(())
    }

    fn query(&self, query: &[u8]) -> Result<Bytes, StateMachineError> {
        let register = usize::from(*query.first().ok_or_else(|| StateMachineError::new("an empty query"))?);
        let value = self.values.get(register).copied().unwrap_or(0);
        Ok(Bytes::copy_from_slice(&value.to_le_bytes()))
    }

    fn snapshot(&mut self) -> Option<Box<dyn SnapshotSource>> {
        let mut state = vec![self.skipped + self.applied.len() as u64, self.chain];
        state.extend(&self.values);
        Some(Box::new(State(state)))
    }

    fn restore(&mut self, from: &mut dyn Read) -> Result<(), StateMachineError> {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).map_err(|error| StateMachineError::new(error.to_string()))?;
        let words: Vec<u64> = bytes.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
        let [skipped, chain, values @ ..] = &words[..] else {
            return Err(StateMachineError::new("a snapshot that is too short"));
        };
        *self = Registers { values: values.to_vec(), applied: Vec::new(), skipped: *skipped, chain: *chain };
        Ok(())
    }
}

/// How many commands were applied, their hash, and the registers.
struct State(Vec<u64>);

impl SnapshotSource for State {
    fn write_to(self: Box<Self>, out: &mut dyn Write) -> io::Result<()> {
        self.0.iter().try_for_each(|word| out.write_all(&word.to_le_bytes()))
    }
}
