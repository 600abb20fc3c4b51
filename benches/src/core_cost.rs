//! What ordering one command costs in the core: three replicas in one thread, by direct calls.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use synod_checker::ValueId;
use synod_core::memory::MemoryStorage;
use synod_core::{
    Applied, ClientId, ClusterId, Command, Effects, GroupId, Identity, Inbound, Input, Instant, Kind,
    LogCall, LogEvent, LogIndex, LogReader, Machine, Membership, NodeId, OpenError, Outputs, Protocol,
    ProtocolConfig, ReadError, RequestId, Role, Send, Sequence, Start, StateMachine, StateMachineError,
    Storage, Write, WriteId,
};
use synod_replica::{Actions, ClientCall, Replica, ReplicaConfig, ReplicaEvent, SessionKey, Token};

use crate::state_machine::Store;
use crate::workload::Format;

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct CoreCost {
    /// How much of a replica runs.
    pub level: Level,
    /// Commands proposed at once; the next ones follow when all of them are done.
    pub window: usize,
    /// Commands at least; rounded up to whole windows.
    pub commands: u64,
}

/// How much of a replica runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The protocol alone; a command is done when the leader has decided it.
    Protocol,
    /// The whole replica with its session; a command is done when it is answered. With a key-value state
    /// machine, or one that does nothing.
    Replica {
        /// True for the key-value state machine.
        state_machine: bool,
    },
}

/// What came out.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Commands ordered in the measured time.
    pub commands: u64,
    /// Time for all of them.
    pub elapsed: Duration,
}

/// Measures one protocol.
///
/// # Panics
/// If the replicas disagree, lose a command, or elect nobody: a figure of a wrong run is worth nothing.
///
/// # Errors
/// [`OpenError`] if the protocol refuses the configuration.
pub fn measure<C: ProtocolConfig>(
    config: &C,
    membership: &Membership,
    plan: CoreCost,
) -> Result<Cost, OpenError> {
    match plan.level {
        Level::Protocol => Trio::<Bare<C::Protocol>>::open(config, membership)?.run(plan),
        Level::Replica { state_machine: false } => {
            Trio::<Full<C::Protocol, Nothing>>::open(config, membership)?.run(plan)
        }
        Level::Replica { state_machine: true } => {
            Trio::<Full<C::Protocol, Store>>::open(config, membership)?.run(plan)
        }
    }
}

/// One replica at some level, driven by direct calls.
trait Core: Sized {
    type Config;
    type Parcel;
    fn open(start: Start<Self::Config>, storage: MemoryStorage) -> Result<Self, OpenError>;
    fn leads(&self) -> bool;
    fn propose(&mut self, now: Instant, window: usize, payloads: &mut Payloads);
    /// Handles what has arrived. True if there is more to do even if nothing arrives.
    fn turn(
        &mut self,
        now: Instant,
        arrived: &mut Vec<Self::Parcel>,
        out: &mut Vec<(NodeId, Self::Parcel)>,
    ) -> bool;
    /// Commands done since the start, as the proposer sees it.
    fn done(&self) -> u64;
    /// Everything through this index is decided here.
    fn decided(&self) -> LogIndex;
}

struct Trio<R: Core> {
    cores: Vec<(R, Vec<R::Parcel>)>,
    /// Cores that have something to do.
    ready: VecDeque<usize>,
    out: Vec<(NodeId, R::Parcel)>,
    now: Instant,
}

impl<R: Core> Trio<R> {
    fn open(config: &R::Config, membership: &Membership) -> Result<Trio<R>, OpenError>
    where
        R::Config: Clone,
    {
        let mut trio = Trio { cores: Vec::new(), ready: VecDeque::new(), out: Vec::new(), now: Instant(1) };
        for member in membership.members() {
            let mut storage = MemoryStorage::new();
            let identity = Identity { cluster: ClusterId(1), node: member.id, group: GroupId(0) };
            let recovered = storage.recover(&identity).now_or_never().expect("memory does not wait");
            let start = Start {
                node: member.id,
                membership: membership.clone(),
                config: config.clone(),
                recovered: recovered.expect("an empty log belongs to nobody else"),
                now: trio.now,
                seed: SEED + member.id.0,
            };
            trio.cores.push((R::open(start, storage)?, Vec::new()));
        }
        Ok(trio)
    }

    fn run(mut self, plan: CoreCost) -> Result<Cost, OpenError> {
        let leader = self.elect();
        let mut payloads = Payloads::new();
        self.rounds(leader, WARM_UP.div_ceil(plan.window as u64), plan.window, &mut payloads);
        let before = self.cores[leader].0.done();
        let rounds = plan.commands.div_ceil(plan.window as u64);
        let started = std::time::Instant::now();
        self.rounds(leader, rounds, plan.window, &mut payloads);
        let elapsed = started.elapsed();
        let commands = self.cores[leader].0.done() - before;
        assert_eq!(commands, rounds * plan.window as u64, "every command is done once");
        self.agree(leader);
        Ok(Cost { commands, elapsed })
    }

    /// Lets time pass until somebody leads and everybody has settled.
    fn elect(&mut self) -> usize {
        for _ in 0..10_000 {
            self.pass(Duration::from_millis(1));
            if let Some(leader) = self.cores.iter().position(|(core, _)| core.leads()) {
                self.pass(Duration::from_millis(100));
                return leader;
            }
        }
        panic!("nobody was elected in ten seconds of virtual time");
    }

    fn rounds(&mut self, leader: usize, rounds: u64, window: usize, payloads: &mut Payloads) {
        let mut wanted = self.cores[leader].0.done();
        for _ in 0..rounds {
            self.now += ROUND;
            self.cores[leader].0.propose(self.now, window, payloads);
            wanted += window as u64;
            self.settle();
            for _ in 0..1_000 {
                if self.cores[leader].0.done() >= wanted {
                    break;
                }
                self.pass(Duration::from_millis(1));
            }
            assert_eq!(
                self.cores[leader].0.done(),
                wanted,
                "a window was not done in a second of virtual time"
            );
        }
    }

    /// Followers must hear of everything that the leader has decided.
    fn agree(&mut self, leader: usize) {
        let decided = self.cores[leader].0.decided();
        self.pass(Duration::from_millis(500));
        for (core, _) in &self.cores {
            assert!(core.decided() >= decided, "every replica decides what the leader has decided");
        }
    }

    fn pass(&mut self, time: Duration) {
        let to = self.now + time;
        while self.now < to {
            self.now += Duration::from_millis(1);
            self.settle();
        }
    }

    /// Gives every core a turn, then those that have something to do, until nobody has.
    fn settle(&mut self) {
        self.ready.extend(0..self.cores.len());
        while let Some(at) = self.ready.pop_front() {
            let (core, arrived) = &mut self.cores[at];
            let more = core.turn(self.now, arrived, &mut self.out);
            for (to, parcel) in self.out.drain(..) {
                let to = usize::try_from(to.0 - 1).expect("three nodes");
                self.cores[to].1.push(parcel);
                if !self.ready.contains(&to) {
                    self.ready.push_back(to);
                }
            }
            if more && !self.ready.contains(&at) {
                self.ready.push_back(at);
            }
        }
    }
}

/// Ready-made commands, so that making them is not measured.
struct Payloads {
    ready: Vec<Bytes>,
    next: usize,
}

impl Payloads {
    fn new() -> Payloads {
        let format = Format::new(128);
        // A fixed stride over the keys: every key, in no simple order, the same in every run.
        let ready: Vec<Bytes> =
            (0..KEYS).map(|i| format.put(i.wrapping_mul(7_919) % KEYS, ValueId(u64::from(i)))).collect();
        Payloads { ready, next: 0 }
    }

    fn next(&mut self) -> Bytes {
        let payload = self.ready[self.next].clone();
        self.next = (self.next + 1) % self.ready.len();
        payload
    }
}

const KEYS: u32 = 10_000;
const WARM_UP: u64 = 2_048;
const SEED: u64 = 0xC0DE;
/// Virtual time between windows: near what a window takes in fact, so that timers fire as often as they would.
const ROUND: Duration = Duration::from_micros(50);

/// The protocol alone, on its own storage.
struct Bare<P: Protocol> {
    node: NodeId,
    machine: P,
    effects: Effects<P::Message, LogEvent>,
    held: Vec<Send<P::Message>>,
    storage: MemoryStorage,
    reader: Arc<dyn LogReader>,
    persisted: Option<WriteId>,
    proposed: u64,
    decided: LogIndex,
    /// The index before the first command.
    base: LogIndex,
}

impl<P: Protocol> Core for Bare<P>
where
    P::Config: ProtocolConfig,
{
    type Config = P::Config;
    type Parcel = (NodeId, P::Message);

    fn open(start: Start<P::Config>, storage: MemoryStorage) -> Result<Self, OpenError> {
        Ok(Bare {
            node: start.node,
            machine: <P as Machine>::open(start)?,
            effects: Effects::new(),
            held: Vec::new(),
            reader: storage.reader(),
            storage,
            persisted: None,
            proposed: 0,
            decided: LogIndex::ZERO,
            base: LogIndex::ZERO,
        })
    }

    fn leads(&self) -> bool {
        self.machine.status().role == Role::Leader
    }

    fn propose(&mut self, now: Instant, window: usize, payloads: &mut Payloads) {
        if self.proposed == 0 {
            self.base = self.decided;
        }
        let mut commands = Vec::with_capacity(window);
        for _ in 0..window {
            self.proposed += 1;
            let sequence = Sequence(self.proposed);
            let request = RequestId { client: ClientId(1), sequence, first_incomplete: sequence };
            commands.push(Command { kind: Kind::Command, request, payload: payloads.next() });
        }
        self.machine.step(now, Input::Call(LogCall::Propose(commands)), &mut self.effects);
    }

    fn turn(
        &mut self,
        now: Instant,
        arrived: &mut Vec<Self::Parcel>,
        out: &mut Vec<(NodeId, Self::Parcel)>,
    ) -> bool {
        if let Some(through) = self.persisted.take() {
            self.machine.step(now, Input::Persisted(through), &mut self.effects);
        }
        for (from, message) in arrived.drain(..) {
            self.machine.step(now, Input::Receive { from, message }, &mut self.effects);
        }
        if self.machine.next_deadline().is_some_and(|deadline| deadline <= now) {
            self.machine.step(now, Input::Tick, &mut self.effects);
        }
        self.machine.flush(now, &mut self.effects);
        let unit = self.effects.settle();
        for event in self.effects.drain_events() {
            match event {
                LogEvent::Decided(through) => self.decided = through,
                LogEvent::Refused { why, .. } => panic!("a command was refused: {why}"),
                LogEvent::SendSnapshot { .. } | LogEvent::DiscardSnapshot(_) => {
                    panic!("nothing was compacted")
                }
                LogEvent::ReadReady { .. }
                | LogEvent::ReadFailed { .. }
                | LogEvent::TransferFailed { .. }
                | LogEvent::Role(_) => {}
            }
        }
        for send in self.effects.drain_sends() {
            match (send.after, &unit) {
                (Some(after), Some(unit)) if after >= unit.id => self.held.push(send),
                // Every earlier unit was made durable in the turn that asked for it.
                _ => out.push((send.to, (self.node, send.message))),
            }
        }
        if let Some(unit) = unit {
            self.persisted = write(&mut self.storage, std::slice::from_ref(&unit));
        }
        out.extend(self.held.drain(..).map(|send| (send.to, (self.node, send.message))));
        let mut loads = Vec::new();
        loads.extend(self.effects.drain_loads());
        for load in &loads {
            let result = match self.reader.read(load.range, load.bytes_max) {
                Ok(loaded) => Ok(loaded),
                Err(ReadError::Compacted(compacted)) => Err(compacted),
                Err(error) => panic!("memory was not read: {error}"),
            };
            self.machine.step(now, Input::Loaded { id: load.id, result }, &mut self.effects);
        }
        self.persisted.is_some() || !loads.is_empty()
    }

    fn done(&self) -> u64 {
        if self.proposed == 0 { 0 } else { self.decided.distance_from(self.base) }
    }

    fn decided(&self) -> LogIndex {
        self.decided
    }
}

/// A whole replica, on its own storage.
struct Full<P: Protocol, S: StateMachine> {
    node: NodeId,
    replica: Replica<P, S>,
    actions: Actions<P::Message>,
    events: Vec<ReplicaEvent>,
    storage: MemoryStorage,
    reader: Arc<dyn LogReader>,
    persisted: Option<WriteId>,
    proposed: u64,
    done: u64,
}

impl<P, S> Core for Full<P, S>
where
    P: Protocol,
    P::Config: ProtocolConfig,
    S: StateMachine + Default,
{
    type Config = P::Config;
    type Parcel = Inbound<P::Message>;

    fn open(start: Start<P::Config>, storage: MemoryStorage) -> Result<Self, OpenError> {
        Ok(Full {
            node: start.node,
            replica: Replica::open(start, GroupId(0), ReplicaConfig::default(), S::default(), None)?,
            actions: Actions::default(),
            events: Vec::new(),
            reader: storage.reader(),
            storage,
            persisted: None,
            proposed: 0,
            done: 0,
        })
    }

    fn leads(&self) -> bool {
        self.replica.status().protocol.role == Role::Leader
    }

    fn propose(&mut self, now: Instant, window: usize, payloads: &mut Payloads) {
        for _ in 0..window {
            self.proposed += 1;
            self.replica.call(ClientCall::Propose {
                session: SessionKey::OWN,
                token: Token(self.proposed),
                payload: payloads.next(),
                deadline: now + Duration::from_secs(10),
            });
        }
    }

    fn turn(
        &mut self,
        now: Instant,
        arrived: &mut Vec<Self::Parcel>,
        out: &mut Vec<(NodeId, Self::Parcel)>,
    ) -> bool {
        if let Some(through) = self.persisted.take() {
            self.replica.persisted(now, through);
        }
        for inbound in arrived.drain(..) {
            self.replica.receive(now, inbound);
        }
        if self.replica.next_deadline().is_some_and(|deadline| deadline <= now) {
            self.replica.tick(now);
        }
        // As the runtime drives a storage that need not wait.
        self.replica.settle(now, &mut self.actions);
        if let Some(durable) = write(&mut self.storage, &self.actions.writes) {
            self.actions.writes.clear();
            self.replica.persisted(now, durable);
        }
        self.replica.finish(now, &mut self.actions, &mut self.events);
        self.persisted = write(&mut self.storage, &self.actions.writes);
        self.actions.writes.clear();
        let from = self.node;
        out.extend(self.actions.envelopes.drain(..).map(|(to, envelope)| (to, Inbound { from, envelope })));
        let mut loaded = false;
        for load in self.actions.loads.drain(..) {
            loaded = true;
            let result = match self.reader.read(load.range, load.bytes_max) {
                Ok(loaded) => Ok(loaded),
                Err(ReadError::Compacted(compacted)) => Err(compacted),
                Err(error) => panic!("memory was not read: {error}"),
            };
            self.replica.loaded(load.id, result);
        }
        for event in self.events.drain(..) {
            match event {
                ReplicaEvent::Proposed { result: Ok(_), .. } => self.done += 1,
                ReplicaEvent::Proposed { result: Err(error), .. } => panic!("a command failed: {error}"),
                ReplicaEvent::Fatal(error) => panic!("a replica failed: {error}"),
                _ => {}
            }
        }
        self.persisted.is_some() || loaded || self.replica.has_work()
    }

    fn done(&self) -> u64 {
        self.done
    }

    fn decided(&self) -> LogIndex {
        self.replica.status().applied
    }
}

/// Makes the units durable; the last of them.
fn write(storage: &mut MemoryStorage, units: &[Write]) -> Option<WriteId> {
    let last = units.last()?.id;
    storage.try_write(units).expect("memory does not wait").expect("memory does not fail");
    Some(last)
}

/// A state machine that holds nothing.
#[derive(Clone, Copy, Debug, Default)]
struct Nothing;

impl StateMachine for Nothing {
    fn apply(&mut self, batch: &[Applied<'_>], out: &mut Outputs) -> Result<(), StateMachineError> {
        for _ in batch {
            out.reply(Bytes::new());
        }
        Ok(())
    }

    fn query(&self, _query: &[u8]) -> Result<Bytes, StateMachineError> {
        Ok(Bytes::new())
    }
}
