//! What a deterministic machine is, and what it is fed.

use std::fmt::{Debug, Display};

use crate::{
    Compacted, DecodeError, Effects, Instant, LoadId, Loaded, Membership, NodeId, Recovered, WriteId,
};

/// A deterministic machine: no clock, socket, disk, thread, ambient randomness or map of random order.
///
/// # The calling order
/// The host calls [`step`](Machine::step) once per input, any number of times, then
/// [`flush`](Machine::flush) once, and then drains the effects. It calls `step` with [`Input::Tick`] when
/// [`next_deadline`](Machine::next_deadline) is due, and asks again after every flush. `now` never goes back.
///
/// The same inputs, instants and seed give the same effects, to the byte.
pub trait Machine: Sized + std::marker::Send + 'static {
    /// How it is set up. Validated before it is opened.
    type Config: std::marker::Send + 'static;
    /// What it says to its peers. `Display` is one stable line, used by golden tests and traces.
    type Message: Clone + Debug + Display + std::marker::Send + 'static;
    /// What its host asks of it.
    type Call: std::marker::Send + 'static;
    /// What its host is told.
    type Event: std::marker::Send + 'static;

    /// Opens the machine on what its storage recovered.
    ///
    /// # Errors
    /// [`OpenError`] if the configuration is not valid or the recovered state is not one this machine wrote.
    fn open(start: Start<Self::Config>) -> Result<Self, OpenError>;

    /// Takes one input.
    fn step(
        &mut self,
        now: Instant,
        input: Input<Self::Message, Self::Call>,
        effects: &mut Effects<Self::Message, Self::Event>,
    );

    /// Called once after a batch of steps and before the effects are drained: what can be done once for
    /// the batch (one append per peer, one round of barriers) is done here.
    fn flush(&mut self, now: Instant, effects: &mut Effects<Self::Message, Self::Event>) {
        let _ = (now, effects);
    }

    /// When the machine wants a [`Input::Tick`]; `None` for never. It may lie in the past.
    fn next_deadline(&self) -> Option<Instant>;
}

/// What a machine is opened with.
#[derive(Clone, Debug)]
pub struct Start<C> {
    /// Who it is.
    pub node: NodeId,
    /// Who takes part, itself included.
    pub membership: Membership,
    /// Its settings.
    pub config: C,
    /// What its storage gave back.
    pub recovered: Recovered,
    /// The current time.
    pub now: Instant,
    /// Seeds the machine's one random generator.
    pub seed: u64,
}

/// What a machine is fed.
#[derive(Clone, Debug)]
pub enum Input<M, C> {
    /// A peer's message. It may be late, repeated, reordered or wrong; stale incarnations are already dropped.
    Receive {
        /// The peer.
        from: NodeId,
        /// What it says.
        message: M,
    },
    /// This write unit and every one before it are durable.
    Persisted(WriteId),
    /// The answer to [`Effects::load`].
    Loaded {
        /// Which load.
        id: LoadId,
        /// The entries of a prefix of the range, or the news that its start is compacted.
        result: Result<Loaded, Compacted>,
    },
    /// The host asks for something.
    Call(C),
    /// A deadline may be due.
    Tick,
}

/// Why a machine does not open.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The settings contradict each other.
    #[error("invalid configuration")]
    Config(#[from] ConfigError),
    /// The hard state is not one this machine wrote.
    #[error("hard state cannot be read")]
    HardState(#[source] DecodeError),
    /// The recovered log is not one this machine wrote.
    #[error("recovered log is inconsistent: {what}")]
    Log {
        /// What is wrong with it.
        what: &'static str,
    },
    /// The state cannot be what the snapshot says.
    #[error("the snapshot to start from cannot be used: {what}")]
    Snapshot {
        /// Why not.
        what: String,
    },
    /// The node is not in the membership it was opened with.
    #[error("{node} is not a member")]
    NotAMember {
        /// The node.
        node: NodeId,
    },
}

/// A setting that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{setting}` {problem}")]
pub struct ConfigError {
    /// The name of the setting.
    pub setting: &'static str,
    /// What is wrong with it, as a phrase that follows the name.
    pub problem: &'static str,
}
