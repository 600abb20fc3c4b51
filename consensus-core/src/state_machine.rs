//! What a state machine is, and a thin typed layer over opaque bytes.

use std::io;

use bytes::Bytes;

use crate::{DecodeError, LogIndex, Reign, RequestId, Service, SnapshotSource};

/// What the log drives: deterministic, so that equal logs give equal states.
///
/// A state machine is rebuilt from a snapshot and the log at every start. It sees each command at most once: duplicates
/// are dropped before it.
pub trait StateMachine: Send + 'static {
    /// Applies decided commands in order and gives [`Outputs::reply`] one reply for each.
    ///
    /// A command that makes no sense is answered by a reply that says so: it was decided, so every
    /// replica meets it.
    ///
    /// # Errors
    /// [`StateMachineError`] if the state can no longer be trusted; the node stops.
    fn apply(&mut self, batch: &[Applied<'_>], out: &mut Outputs) -> Result<(), StateMachineError>;

    /// Answers a question about the current state.
    ///
    /// # Errors
    /// [`StateMachineError`] is handed to the caller; the node goes on.
    fn query(&self, query: &[u8]) -> Result<Bytes, StateMachineError>;

    /// Its state now, to be written down elsewhere while this one goes on: an immutable copy, or one that is shared until
    /// either side changes. `None` if it cannot be written down; then its log is never compacted.
    fn snapshot(&mut self) -> Option<Box<dyn SnapshotSource>> {
        None
    }

    /// Becomes what a [`SnapshotSource`] of another replica, or of an earlier life, wrote. What was here before is gone,
    /// also if it fails.
    ///
    /// # Errors
    /// [`StateMachineError`] if the bytes are not such; the node stops.
    fn restore(&mut self, from: &mut dyn io::Read) -> Result<(), StateMachineError> {
        let _ = from;
        Err(StateMachineError::new("it cannot be restored from a snapshot"))
    }

    /// What it does of its own accord; none for most.
    fn service(&mut self) -> Option<&mut dyn Service> {
        None
    }
}

/// One decided command.
#[derive(Clone, Copy, Debug)]
pub struct Applied<'a> {
    /// Its position in the log.
    pub index: LogIndex,
    /// The leadership period in which it was first proposed.
    pub reign: Reign,
    /// Its session and number there.
    pub request: RequestId,
    /// What was proposed. Cloning or slicing it copies no byte, and keeps the whole received frame alive.
    pub payload: &'a Bytes,
}

/// Collects the replies of one call to [`StateMachine::apply`].
#[derive(Debug, Default)]
pub struct Outputs {
    replies: Vec<Bytes>,
}

impl Outputs {
    /// Nothing answered yet.
    #[must_use]
    pub fn new() -> Outputs {
        Outputs::default()
    }

    /// The reply to the next command of the batch.
    pub fn reply(&mut self, reply: Bytes) {
        self.replies.push(reply);
    }

    /// How many commands were answered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.replies.len()
    }

    /// True if none was.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.replies.is_empty()
    }

    /// Takes the replies, in the order of the batch.
    pub fn drain(&mut self) -> std::vec::Drain<'_, Bytes> {
        self.replies.drain(..)
    }
}

/// What went wrong inside a state machine.
#[derive(Debug, thiserror::Error)]
#[error("state machine: {message}")]
pub struct StateMachineError {
    /// What went wrong, lower case, no full stop.
    pub message: String,
    /// What caused it.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl StateMachineError {
    /// An error without a cause.
    pub fn new(message: impl Into<String>) -> StateMachineError {
        StateMachineError { message: message.into(), source: None }
    }
}

/// A value that becomes the bytes of a command, a query or a reply.
pub trait Encode {
    /// The bytes.
    fn encode(&self) -> Bytes;
}

/// A value read back from bytes.
pub trait Decode: Sized {
    /// The value.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes do not stand for a value.
    fn decode(bytes: Bytes) -> Result<Self, DecodeError>;
}

/// A command or a query that knows the type of its answer.
pub trait Operation: Encode {
    /// What the state machine answers.
    type Reply: Decode;
}

impl Encode for Bytes {
    fn encode(&self) -> Bytes {
        self.clone()
    }
}

impl Decode for Bytes {
    fn decode(bytes: Bytes) -> Result<Bytes, DecodeError> {
        Ok(bytes)
    }
}

/// Raw bytes, answered by raw bytes.
impl Operation for Bytes {
    type Reply = Bytes;
}
