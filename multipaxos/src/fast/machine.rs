//! `FastPaxos`, the machine: a Multi-Paxos replica with fast rounds.

use synod_core::{
    Input, Instant, LogCall, LogEvent, LogIndex, Machine, OpenError, Protocol, Route, Start, Status,
};

use crate::ballot::Ballot;
use crate::counters::Counters;
use crate::fast::{Fast, FastPaxosConfig};
use crate::message::Message;
use crate::multipaxos::{Effects, MultiPaxos};

/// One replica of Fast Paxos: every replica proposes by itself while fast rounds are open, and through the leader while
/// they are not. See the [crate's front page](crate).
#[derive(Clone, Debug)]
pub struct FastPaxos(MultiPaxos);

impl FastPaxos {
    /// The default settings.
    #[must_use]
    pub fn config() -> FastPaxosConfig {
        FastPaxosConfig::default()
    }

    /// How often things happened since the replica was opened.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        self.0.counters()
    }

    /// True if this replica may propose by itself now.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.0.open_rounds().is_some()
    }

    /// The fast rounds that this replica heard of last: their ballot, and the first slot that is open. They end with
    /// their ballot.
    #[must_use]
    pub fn opening(&self) -> Option<(Ballot, LogIndex)> {
        self.0.fast.as_ref()?.any.map(|open| (open.ballot, open.from))
    }
}

impl Machine for FastPaxos {
    type Config = FastPaxosConfig;
    type Message = Message;
    type Call = LogCall;
    type Event = LogEvent;

    fn open(start: Start<FastPaxosConfig>) -> Result<FastPaxos, OpenError> {
        synod_core::ProtocolConfig::validate(&start.config)?;
        let FastPaxosConfig { classic, tuning } = start.config;
        let (node, membership, recovered) = (start.node, start.membership, start.recovered);
        let (now, seed) = (start.now, start.seed);
        let start = Start { node, membership, config: classic, recovered, now, seed };
        MultiPaxos::open_as(start, |decided, now| Some(Box::new(Fast::new(tuning, decided, now))))
            .map(FastPaxos)
    }

    fn step(&mut self, now: Instant, input: Input<Message, LogCall>, effects: &mut Effects) {
        self.0.step(now, input, effects);
    }

    fn flush(&mut self, now: Instant, effects: &mut Effects) {
        self.0.flush(now, effects);
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.0.next_deadline()
    }
}

impl Protocol for FastPaxos {
    fn route(&self) -> Route {
        if self.is_open() { Route::Here } else { self.0.route() }
    }

    fn read_route(&self) -> Route {
        self.0.route()
    }

    fn status(&self) -> Status {
        self.0.status()
    }
}
