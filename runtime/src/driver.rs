//! The one task of a node: wait, drain, step, flush, carry out.

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use synod_core::{
    Inbound, Instant, Protocol, ProtocolConfig, StateMachine, StorageError, Transport, Wire, Write,
};
use synod_replica::{Actions, ClientCall, Replica, ReplicaEvent, SnapshotDone};

use crate::archive::{Archive, KeeperPanicked};
use crate::calls::{Answer, Ask, Call, Promise, Wanted, Why};
use crate::clock::{Clock, Timer};
use crate::journal::{Answers, Journal};
use crate::node::Shared;
use crate::status::{Health, StopReason};
use crate::waiting::Waiting;

/// How often the replica is flushed in a row before the task gives way to others.
const FLUSHES_MAX: usize = 64;

/// How long mere progress of `decided` and `applied` goes unpublished.
const PROGRESS_EVERY: Duration = Duration::from_millis(5);

/// Everything of a node that is lost in a crash.
pub(crate) struct Driver<P: Protocol, S: StateMachine> {
    pub(crate) shared: Arc<Shared>,
    pub(crate) replica: Replica<P, S>,
    pub(crate) transport: Box<dyn Transport<P::Message>>,
    pub(crate) journal: Journal,
    /// None if the node keeps no snapshots.
    pub(crate) archive: Option<Archive>,
    pub(crate) clock: Clock,
    pub(crate) timer: Timer,
    /// Give way once after every wake-up, so that a batch can gather.
    pub(crate) gathers: bool,
    pub(crate) meters: bool,
    pub(crate) drain_timeout: Duration,
    pub(crate) work: Work<P::Message>,
}

/// What a round works on; kept for its memory.
pub(crate) struct Work<M> {
    calls: Vec<Call>,
    inbound: Vec<Inbound<M>>,
    answers: Answers,
    snapshots: Vec<SnapshotDone>,
    actions: Actions<M>,
    events: Vec<ReplicaEvent>,
    waiting: Waiting,
    /// The last reading of the clock.
    now: Instant,
    /// The last round ended with work left.
    again: bool,
    /// Set once the node drains: until when, and what is said then.
    drain: Option<(Instant, StopReason)>,
    /// When progress may be published again, and whether there may be some.
    publish_at: Instant,
    unpublished: bool,
    /// Role, leader or reign changed.
    publish_now: bool,
}

impl<M> Default for Work<M> {
    fn default() -> Self {
        Work {
            calls: Vec::new(),
            inbound: Vec::new(),
            answers: Vec::new(),
            snapshots: Vec::new(),
            actions: Actions::default(),
            events: Vec::new(),
            waiting: Waiting::default(),
            now: Instant::ZERO,
            again: true,
            drain: None,
            publish_at: Instant::ZERO,
            unpublished: false,
            publish_now: true,
        }
    }
}

impl<P, S> Driver<P, S>
where
    P: Protocol,
    P::Config: ProtocolConfig,
    P::Message: Send,
    S: StateMachine,
{
    /// Runs the node to its end. On return replica and transport are dropped, and the storage and the store of snapshots
    /// are closed.
    pub(crate) async fn run(mut self) -> StopReason {
        let reason = loop {
            if let Err(reason) = self.round().await {
                break reason;
            }
        };
        self.work.publish_now = true;
        self.publish(self.work.now);
        let Driver { journal, archive, replica, transport, work, .. } = self;
        // Callers are told when nothing is left that could still act on their commands.
        drop((replica, transport));
        journal.close().await;
        if let Some(archive) = archive {
            archive.close().await;
        }
        drop(work);
        reason
    }

    async fn round(&mut self) -> Result<(), StopReason> {
        let parked = self.wait().await?;
        if self.gathers || !parked {
            give_way().await;
        }
        let now = self.drain()?;
        self.flush(now).await?;
        self.publish(now);
        self.end_if_drained(now)
    }

    /// Waits for something to do; false if there was something already.
    async fn wait(&mut self) -> Result<bool, StopReason> {
        let Driver { shared, replica, transport, journal, archive, timer, work, .. } = self;
        if work.again {
            return Ok(false);
        }
        let publish_at = work.unpublished.then_some(work.publish_at);
        let drain_until = work.drain.as_ref().map(|(until, _)| *until);
        let deadline = Instant::earlier(Instant::earlier(replica.next_deadline(), publish_at), drain_until);
        let now = work.now;
        let mut receive = transport.receive(&mut work.inbound);
        let mut parked = false;
        std::future::poll_fn(|context| {
            // Whatever woke the task, the round looks at everything there is.
            if parked
                || shared.inbox.poll_ready(context).is_ready()
                || journal.poll_completed(context).is_ready()
                || archive.as_ref().is_some_and(|archive| archive.poll_done(context).is_ready())
            {
                return Poll::Ready(Ok(parked));
            }
            match receive.as_mut().poll(context) {
                Poll::Ready(Ok(())) => return Poll::Ready(Ok(parked)),
                Poll::Ready(Err(_)) => return Poll::Ready(Err(StopReason::TransportClosed)),
                Poll::Pending => {}
            }
            if !timer.arm(deadline, now, context) {
                return Poll::Ready(Ok(parked));
            }
            parked = true;
            Poll::Pending
        })
        .await
    }

    /// Feeds everything there is to the replica. The clock is read after the last input was taken.
    fn drain(&mut self) -> Result<Instant, StopReason> {
        let Driver { shared, replica, transport, journal, archive, clock, work, drain_timeout, .. } = self;
        let wanted = shared.inbox.take(&mut work.calls);
        if wanted == Some(Wanted::Abort) {
            return Err(StopReason::Aborted);
        }
        let durable = journal.take_completed(&mut work.answers).map_err(StopReason::Storage)?;
        if let Some(archive) = archive {
            archive.take_done(&mut work.snapshots).map_err(|KeeperPanicked| StopReason::Panicked)?;
        }
        transport.try_receive(&mut work.inbound).map_err(|_| StopReason::TransportClosed)?;
        let now = clock.now();
        work.now = now;

        let counters = &shared.counters;
        counters.rounds.add(1);
        counters.calls.add(work.calls.len());
        counters.envelopes_received.add(work.inbound.len());
        if let Some(durable) = durable {
            replica.persisted(now, durable);
        }
        for (id, answer) in work.answers.drain(..) {
            replica.loaded(id, answer);
        }
        for done in work.snapshots.drain(..) {
            if let Some(error) = done.error() {
                tracing::warn!(node = %shared.node, %error, cause = cause_of(error), "a snapshot failed");
            }
            replica.snapshot_done(now, done);
        }
        for inbound in work.inbound.drain(..) {
            replica.receive(now, inbound);
        }
        for call in work.calls.drain(..) {
            take_up(replica, &mut work.waiting, call, now);
        }
        if let Some(Wanted::Drain(why)) = wanted
            && work.drain.is_none()
        {
            let reason = match why {
                Why::Shutdown => StopReason::Shutdown,
                Why::NoHandle => StopReason::Dropped,
            };
            tracing::info!(node = %shared.node, %reason, "stopping");
            work.drain = Some((now + *drain_timeout, reason));
            replica.call(ClientCall::Stop);
            // Whoever leads elsewhere from now on need not wait for this node's silence.
            let token = work.waiting.one(Promise::to_nobody());
            replica.call(ClientCall::Transfer { token, to: None, deadline: now + *drain_timeout });
            shared.status.send_modify(|status| status.health = Health::Stopping);
        }
        if replica.next_deadline().is_some_and(|deadline| deadline <= now) {
            replica.tick(now);
        }
        Ok(now)
    }

    /// Flushes and carries out until nothing is left to do without waiting.
    async fn flush(&mut self, now: Instant) -> Result<(), StopReason> {
        self.work.again = true;
        for _ in 0..FLUSHES_MAX {
            self.replica.settle(now, &mut self.work.actions);
            self.write_at_once(now)?;
            self.replica.finish(now, &mut self.work.actions, &mut self.work.events);
            self.tell()?;
            self.send();
            if let Some(archive) = self.archive.as_ref().filter(|_| !self.work.actions.snapshots.is_empty()) {
                archive.begin(&mut self.work.actions.snapshots);
            }
            let mut fed = false;
            if !self.work.actions.writes.is_empty() {
                self.count_writes();
                let durable = self.journal.write(&mut self.work.actions.writes).await;
                if let Some(durable) = durable.map_err(StopReason::Storage)? {
                    self.replica.persisted(now, durable);
                    fed = true;
                }
            }
            fed |= self.load().map_err(StopReason::Storage)?;
            if !fed && !self.replica.has_work() {
                self.work.again = false;
                break;
            }
        }
        Ok(())
    }

    /// Makes writes durable that need no waiting, so that what they hold back leaves with this flush.
    fn write_at_once(&mut self, now: Instant) -> Result<(), StopReason> {
        let writes = &self.work.actions.writes;
        if writes.is_empty() {
            return Ok(());
        }
        if let Some(durable) = self.journal.try_write(writes) {
            self.count_writes();
            self.work.actions.writes.clear();
            self.replica.persisted(now, durable.map_err(StopReason::Storage)?);
        }
        Ok(())
    }

    fn send(&mut self) {
        let counters = &self.shared.counters;
        for (to, envelope) in self.work.actions.envelopes.drain(..) {
            counters.envelopes_sent.add(1);
            counters.packets_sent.add(envelope.packets.len());
            if self.meters {
                counters.bytes_sent.add(envelope.wire_len());
            }
            self.transport.send(to, envelope);
        }
    }

    fn count_writes(&self) {
        let (counters, writes) = (&self.shared.counters, &self.work.actions.writes);
        counters.units_written.add(writes.len());
        if self.meters {
            counters.bytes_written.add(writes.iter().map(unit_len).sum());
        }
    }

    /// Hands loads to the journal; true if some were answered at once, so that the replica has news.
    fn load(&mut self) -> Result<bool, StorageError> {
        if self.work.actions.loads.is_empty() {
            return Ok(false);
        }
        self.journal.load(&mut self.work.actions.loads, &mut self.work.answers)?;
        let fed = !self.work.answers.is_empty();
        for (id, answer) in self.work.answers.drain(..) {
            self.replica.loaded(id, answer);
        }
        Ok(fed)
    }

    /// Passes on what the replica says.
    fn tell(&mut self) -> Result<(), StopReason> {
        let waiting = &mut self.work.waiting;
        for event in self.work.events.drain(..) {
            match event {
                ReplicaEvent::Proposed { token, result } => waiting.answer_proposal(token, result),
                ReplicaEvent::Read { token, result } => waiting.answer(token, Answer::Read(result)),
                ReplicaEvent::SessionOpened { token, result } => {
                    waiting.answer(token, Answer::Opened(result));
                }
                ReplicaEvent::Transferred { token, result } => {
                    waiting.answer(token, Answer::Transferred(result));
                }
                ReplicaEvent::StatusChanged => self.work.publish_now = true,
                ReplicaEvent::Fatal(error) => return Err(StopReason::Replica(Arc::new(error))),
            }
        }
        Ok(())
    }

    /// Lets watchers know: of a change at once, of mere progress now and then.
    fn publish(&mut self, now: Instant) {
        let work = &mut self.work;
        if !work.publish_now && now < work.publish_at {
            work.unpublished = true;
            return;
        }
        work.publish_now = false;
        work.unpublished = false;
        if self.archive.is_some() {
            let counted = self.replica.counters().snapshots;
            if counted.installed > self.shared.counters.snapshots_installed.value() {
                let index = self.replica.status().snapshot;
                tracing::info!(node = %self.shared.node, %index, "a peer's snapshot took the place of the log");
            }
            self.shared.counters.count_snapshots(&counted);
        }
        let status = self.replica.status();
        let protocol = status.protocol;
        let (mut changed, mut progressed) = (false, false);
        self.shared.status.send_if_modified(|published| {
            changed = (published.role, published.leader, published.reign)
                != (protocol.role, protocol.leader, protocol.reign);
            progressed = (published.decided, published.applied, published.snapshot)
                != (protocol.decided, status.applied, status.snapshot);
            published.role = protocol.role;
            published.leader = protocol.leader;
            published.reign = protocol.reign;
            published.decided = protocol.decided;
            published.applied = status.applied;
            published.snapshot = status.snapshot;
            if changed {
                published.membership = protocol.membership;
            }
            changed || progressed
        });
        if progressed {
            work.publish_at = now + PROGRESS_EVERY;
        }
        if changed {
            tracing::info!(
                node = %self.shared.node,
                role = %protocol.role,
                leader = protocol.leader.map(|leader| leader.0),
                reign = %protocol.reign,
                decided = %protocol.decided,
                "role changed",
            );
        }
    }

    fn end_if_drained(&self, now: Instant) -> Result<(), StopReason> {
        match &self.work.drain {
            Some((_, reason)) if self.replica.is_idle() && self.journal.is_settled() => Err(reason.clone()),
            Some((until, reason)) if *until <= now => {
                tracing::warn!(node = %self.shared.node, "stopped with calls open: their outcome is unknown");
                Err(reason.clone())
            }
            _ => Ok(()),
        }
    }
}

/// Hands a call to the replica under a token.
fn take_up<P, S>(replica: &mut Replica<P, S>, waiting: &mut Waiting, call: Call, now: Instant)
where
    P: Protocol,
    P::Config: ProtocolConfig,
    S: StateMachine,
{
    let Call { ask, timeout, promise } = call;
    let deadline = now + timeout;
    match ask {
        Ask::Propose { session, payload } => {
            let token = waiting.one(promise);
            replica.call(ClientCall::Propose { session, token, payload, deadline });
        }
        Ask::ProposeMany { session, payloads } => {
            for (token, payload) in waiting.many(promise, payloads.len()).zip(payloads) {
                replica.call(ClientCall::Propose { session, token, payload, deadline });
            }
        }
        Ask::Read { query, consistency } => {
            let token = waiting.one(promise);
            replica.call(ClientCall::Read { token, query, consistency, deadline });
        }
        Ask::OpenSession { session, order } => {
            let token = waiting.one(promise);
            replica.call(ClientCall::OpenSession { session, token, order, deadline });
        }
        Ask::AttachSession { session, client, order, next } => {
            replica.call(ClientCall::AttachSession { session, client, order, next });
        }
        Ask::CloseSession { session } => replica.call(ClientCall::CloseSession { session }),
        Ask::Transfer { to } => {
            let token = waiting.one(promise);
            replica.call(ClientCall::Transfer { token, to, deadline });
        }
    }
}

fn cause_of(error: &dyn std::error::Error) -> Option<String> {
    error.source().map(ToString::to_string)
}

/// What a unit weighs in [`crate::Metrics::bytes_written`].
fn unit_len(unit: &Write) -> usize {
    let entries: usize = unit.puts.iter().map(Wire::wire_len).sum();
    entries + unit.hard_state.as_ref().map_or(0, Bytes::len)
}

/// Lets every task that is ready run before this one goes on.
///
/// Unlike [`tokio::task::yield_now`] it goes to the back of the run queue right away instead of waiting for
/// a look at sockets and timers.
async fn give_way() {
    let mut gave_way = false;
    std::future::poll_fn(|context| {
        if gave_way {
            return Poll::Ready(());
        }
        gave_way = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
