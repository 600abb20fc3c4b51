//! Snapshots: when one is taken, what is removed from the log for it, and how a replica that is too far behind for the
//! log gets one.
//!
//! The two newest are kept, and the log from the older one on. So a peer that is a little slow finds what it needs in
//! the log, and a node whose newest snapshot is damaged starts from the one before; both by one rule that needs no
//! setting, and that bounds the log by what is applied between two snapshots.

mod contents;
mod keeper;
mod receiving;
mod sending;

use std::collections::BTreeMap;
use std::time::Duration;

use synod_core::{
    Input, Instant, LogCall, LogIndex, NodeId, OpenError, Packet, Protocol, ProtocolConfig, SnapshotAck,
    SnapshotChunk, SnapshotError, SnapshotHead, SnapshotId, SnapshotMeta, SnapshotOutcome, StateMachine,
    WriteId,
};

pub(crate) use contents::restore;
use keeper::{Done, Job};
pub use keeper::{KeptSnapshots, SnapshotDone, SnapshotJob, SnapshotKeeper};
use receiving::Receiving;
use sending::{Next, Sending};

use crate::Replica;

/// When snapshots are taken, and how they travel. Local: replicas may differ without harm, and take theirs at different
/// times, so that a cluster is never busy with it all at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotConfig {
    /// One is taken after so many entries were applied since the last one. The log holds at most about twice as many.
    pub entries_max: u64,
    /// One is taken after commands of so many bytes were applied since the last one.
    pub bytes_max: usize,
    /// One is taken if the last one is so old, and anything was applied since.
    pub age_max: Duration,
    /// The largest piece that is sent at once, in bytes: a transport must carry packets of this size.
    pub chunk_bytes: usize,
    /// A piece that was not answered is sent again after this time; whoever failed to take a snapshot waits at least as
    /// long, and twice as long after every further failure.
    pub resend_after: Duration,
    /// A piece that was not answered so many times is given up, and with it the transfer.
    pub tries_max: u32,
}

impl Default for SnapshotConfig {
    fn default() -> SnapshotConfig {
        SnapshotConfig {
            entries_max: 100_000,
            bytes_max: 64 << 20,
            age_max: Duration::from_secs(600),
            chunk_bytes: 256 << 10,
            resend_after: Duration::from_millis(500),
            tries_max: 10,
        }
    }
}

/// What was done about snapshots; counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SnapshotCounters {
    /// Taken here.
    pub taken: u64,
    /// Sent whole to a peer.
    pub sent: u64,
    /// Received whole, and offered to the protocol.
    pub received: u64,
    /// Received, and taken over by protocol and state machine.
    pub installed: u64,
    /// Received, and of no use: the log held as much.
    pub discarded: u64,
    /// Bytes of pieces sent.
    pub bytes_sent: u64,
    /// Attempts to take, send, receive or delete one that failed.
    pub failed: u64,
}

/// What a replica keeps of its snapshots.
#[derive(Debug)]
pub(crate) struct Snapshots {
    config: SnapshotConfig,
    /// False without a store: then none is taken, sent or received.
    stored: bool,
    /// Whole and durable, at most two, ascending.
    kept: Vec<SnapshotHead>,
    /// The one that the state machine started from, until the protocol heard of it.
    started_from: Option<SnapshotHead>,
    taking: Taking,
    /// The state machine can be written down.
    supported: bool,
    /// Somebody needs one that is not there.
    wanted: bool,
    not_before: Instant,
    failures: u32,
    taken_at: Instant,
    /// Payload bytes applied since the last one was begun.
    pub(crate) bytes_since: usize,
    sending: BTreeMap<NodeId, Sending>,
    receiving: Option<Receiving>,
    /// To be deleted once nobody is sent them.
    doomed: Vec<SnapshotId>,
    jobs: Vec<SnapshotJob>,
    counters: SnapshotCounters,
}

/// How far a snapshot of this replica's own is.
#[derive(Debug)]
enum Taking {
    Nothing,
    /// The state is at hand; the log through there is not yet on this disk.
    Waits(WriteId, Box<SnapshotJob>),
    Runs,
}

impl Snapshots {
    pub(crate) fn new(config: SnapshotConfig, kept: Option<&KeptSnapshots>, now: Instant) -> Snapshots {
        let mut snapshots = Snapshots {
            config,
            stored: kept.is_some(),
            kept: Vec::new(),
            started_from: None,
            taking: Taking::Nothing,
            supported: true,
            wanted: false,
            not_before: now,
            failures: 0,
            taken_at: now,
            bytes_since: 0,
            sending: BTreeMap::new(),
            receiving: None,
            doomed: Vec::new(),
            jobs: Vec::new(),
            counters: SnapshotCounters::default(),
        };
        if let Some(kept) = kept {
            snapshots.doomed.extend(kept.damaged.iter().map(|(id, _)| *id));
            snapshots.kept.clone_from(&kept.older);
            if let Some(newest) = &kept.newest {
                snapshots.kept.push(newest.head().clone());
                snapshots.started_from = Some(newest.head().clone());
            }
            snapshots.forget_old();
        }
        snapshots
    }

    /// What the newest one holds.
    pub(crate) fn index(&self) -> LogIndex {
        self.kept.last().map_or(LogIndex::ZERO, |head| head.id.index)
    }

    pub(crate) fn counters(&self) -> SnapshotCounters {
        self.counters
    }

    /// Keeps the two newest.
    fn forget_old(&mut self) {
        let old = self.kept.len().saturating_sub(2);
        self.doomed.extend(self.kept.drain(..old).map(|head| head.id));
    }

    fn do_next(&mut self, job: Job) {
        self.jobs.push(SnapshotJob(job));
    }

    fn put_off(&mut self, now: Instant) {
        self.failures += 1;
        self.not_before = now + self.config.resend_after * (1 << self.failures.min(FAILURES_COUNTED));
    }

    /// When to look at this again, if nothing else happens.
    pub(crate) fn deadline(&self, applied: LogIndex) -> Option<Instant> {
        let mut deadline = self.sending.values().filter_map(Sending::deadline).min();
        if self.stored && self.supported && matches!(self.taking, Taking::Nothing) && applied > self.index() {
            let due = if self.is_large(applied) || self.wanted {
                self.not_before
            } else {
                self.not_before.max(self.taken_at + self.config.age_max)
            };
            deadline = Instant::earlier(deadline, Some(due));
        }
        deadline
    }

    fn is_large(&self, applied: LogIndex) -> bool {
        applied.distance_from(self.index()) >= self.config.entries_max
            || self.bytes_since >= self.config.bytes_max
    }

    /// The log is kept from here on: an older snapshot still needs what follows it, and so does whoever is sent one.
    fn log_begins_after(&self) -> LogIndex {
        let kept = if self.kept.len() < 2 { LogIndex::ZERO } else { self.kept[0].id.index };
        let sent = self.sending.values().map(|sending| sending.head.id.index).min();
        sent.map_or(kept, |sent| sent.min(kept))
    }
}

/// What a packet with a piece may weigh beside it: all about the snapshot, its membership included.
pub(crate) const PIECE_OVERHEAD: usize = 64 << 10;

/// Waits grow to at most sixty-four times what they were.
const FAILURES_COUNTED: u32 = 6;

impl<P, S> Replica<P, S>
where
    P: Protocol,
    P::Config: ProtocolConfig,
    S: StateMachine,
{
    /// Lets the state machine start where the newest snapshot ends.
    pub(crate) fn start_from(
        &mut self,
        kept: Option<KeptSnapshots>,
        compacted: Option<LogIndex>,
    ) -> Result<(), OpenError> {
        let newest = kept.and_then(|kept| kept.newest);
        let index = newest.as_ref().map_or(LogIndex::ZERO, |contents| contents.head().id.index);
        if compacted.is_some_and(|through| through > index) {
            return Err(OpenError::Log { what: "it is compacted, and there is no snapshot to start from" });
        }
        if let Some(mut contents) = newest {
            let limits = self.sessions.limits();
            self.sessions = restore(&mut contents, limits, &mut self.state_machine)
                .map_err(|error| OpenError::Snapshot { what: describe_error(&error) })?;
            self.applied = index;
            self.decided = index;
            self.applied_reign = contents.head().meta.reign;
        }
        Ok(())
    }

    /// A job of [`Actions::snapshots`](crate::Actions::snapshots) ended.
    pub fn snapshot_done(&mut self, now: Instant, done: SnapshotDone) {
        match done.0 {
            Done::Taken(result) => self.on_taken(now, result),
            Done::Staged(id, result) => self.on_staged(now, id, result),
            Done::Read { to, id, result } => self.on_piece_read(now, to, id, result),
            // It is tried again at the next start, which finds it.
            Done::Deleted(Err(_)) => self.snapshots.counters.failed += 1,
            Done::Deleted(Ok(())) => {}
        }
    }

    /// Before the machine is flushed: it hears where the state machine started, and pieces are sent again.
    pub(crate) fn settle_snapshots(&mut self, now: Instant) {
        if let Some(SnapshotHead { id, meta, .. }) = self.snapshots.started_from.take() {
            self.host.step(now, Input::Call(LogCall::SnapshotArrived { id, meta }));
        }
        let mut next = Vec::new();
        for (to, sending) in &mut self.snapshots.sending {
            next.push((*to, sending.on_time(now, &self.snapshots.config)));
        }
        for (to, next) in next {
            self.go_on_sending(now, to, next);
        }
    }

    /// At the end of a flush: begins what is due, and hands the jobs out.
    pub(crate) fn finish_snapshots(&mut self, now: Instant, jobs: &mut Vec<SnapshotJob>) {
        if !self.snapshots.stored {
            return;
        }
        if matches!(self.snapshots.taking, Taking::Nothing) && self.is_snapshot_due(now) {
            self.begin_snapshot(now);
        }
        let taking = std::mem::replace(&mut self.snapshots.taking, Taking::Nothing);
        self.snapshots.taking = match taking {
            Taking::Waits(write, job) if write <= self.host.durable() => {
                self.snapshots.jobs.push(*job);
                Taking::Runs
            }
            other => other,
        };
        let Snapshots { doomed, sending, jobs: own, .. } = &mut self.snapshots;
        if !doomed.is_empty() {
            doomed.retain(|id| {
                let sent = sending.values().any(|sending| sending.head.id == *id);
                if !sent {
                    own.push(SnapshotJob(Job::Delete(*id)));
                }
                sent
            });
        }
        jobs.append(own);
    }

    fn is_snapshot_due(&self, now: Instant) -> bool {
        let snapshots = &self.snapshots;
        snapshots.supported
            && self.applied > snapshots.index()
            && now >= snapshots.not_before
            && (snapshots.is_large(self.applied)
                || snapshots.wanted
                || now >= snapshots.taken_at + snapshots.config.age_max)
    }

    /// Holds the state of this moment, to be written down once the log through here is on this disk: a snapshot is
    /// never ahead of it.
    fn begin_snapshot(&mut self, now: Instant) {
        let Some(described) = self.host.machine().describe(self.applied) else {
            self.snapshots.put_off(now);
            return;
        };
        let Some(source) = self.state_machine.snapshot() else {
            self.snapshots.supported = false;
            return;
        };
        let id =
            SnapshotId { index: self.applied, taken_by: self.host.node(), life: self.host.incarnation() };
        let meta = SnapshotMeta {
            index: self.applied,
            stamp: described.stamp,
            reign: self.applied_reign,
            membership: std::sync::Arc::unwrap_or_clone(described.membership),
        };
        let job = SnapshotJob(Job::Take { id, meta, sessions: self.sessions.encode(), source });
        self.snapshots.bytes_since = 0;
        self.snapshots.taking = Taking::Waits(self.host.issued(), Box::new(job));
    }

    fn on_taken(&mut self, now: Instant, result: Result<SnapshotHead, SnapshotError>) {
        let snapshots = &mut self.snapshots;
        snapshots.taking = Taking::Nothing;
        snapshots.taken_at = now;
        let Ok(head) = result else {
            snapshots.counters.failed += 1;
            snapshots.put_off(now);
            return;
        };
        snapshots.failures = 0;
        snapshots.not_before = now;
        snapshots.wanted = false;
        snapshots.counters.taken += 1;
        if head.id.index <= snapshots.index() {
            // A later one was received meanwhile.
            snapshots.doomed.push(head.id);
            return;
        }
        let index = head.id.index;
        snapshots.kept.push(head);
        snapshots.forget_old();
        let compact_to = snapshots.log_begins_after();
        self.host.step(now, Input::Call(LogCall::SnapshotTaken { index, compact_to }));
    }

    // --- sending ---

    /// The protocol has nothing left in its log for this peer.
    pub(crate) fn on_send_snapshot(&mut self, now: Instant, to: NodeId) {
        let Snapshots { sending, kept, .. } = &mut self.snapshots;
        if sending.contains_key(&to) {
            return;
        }
        let Some(head) = kept.last().cloned() else {
            self.snapshots.wanted = true;
            self.snapshot_sent(now, to, SnapshotOutcome::Failed);
            return;
        };
        sending.insert(to, Sending::new(head));
        self.go_on_sending(now, to, Next::Read(0));
    }

    fn go_on_sending(&mut self, now: Instant, to: NodeId, next: Next) {
        let snapshots = &mut self.snapshots;
        match next {
            Next::Wait => {}
            Next::Read(_) => {
                if let Some(sending) = snapshots.sending.get(&to) {
                    let job = sending.read(to, &snapshots.config);
                    snapshots.do_next(job);
                }
            }
            Next::Taken => {
                if let Some(sending) = snapshots.sending.remove(&to) {
                    snapshots.counters.sent += 1;
                    let outcome = SnapshotOutcome::Taken(sending.head.id.index);
                    self.snapshot_sent(now, to, outcome);
                }
            }
            Next::Failed => {
                snapshots.sending.remove(&to);
                snapshots.counters.failed += 1;
                self.snapshot_sent(now, to, SnapshotOutcome::Failed);
            }
        }
    }

    fn snapshot_sent(&mut self, now: Instant, to: NodeId, outcome: SnapshotOutcome) {
        self.host.step(now, Input::Call(LogCall::SnapshotSent { to, outcome }));
    }

    fn on_piece_read(
        &mut self,
        now: Instant,
        to: NodeId,
        id: SnapshotId,
        result: Result<SnapshotChunk, SnapshotError>,
    ) {
        let snapshots = &mut self.snapshots;
        let Some(sending) = snapshots.sending.get_mut(&to).filter(|sending| sending.head.id == id) else {
            return;
        };
        match result {
            Ok(chunk) if sending.awaits(&chunk) => {
                sending.sent(now, &snapshots.config);
                snapshots.counters.bytes_sent += chunk.bytes.len() as u64;
                self.host.send(to, Packet::SnapshotChunk(chunk));
            }
            Ok(_) => {}
            Err(_) => {
                // It is of no use to anybody else either, and another one takes its place.
                snapshots.kept.retain(|head| head.id != id);
                snapshots.doomed.push(id);
                snapshots.wanted = true;
                self.go_on_sending(now, to, Next::Failed);
            }
        }
    }

    pub(crate) fn on_snapshot_ack(&mut self, now: Instant, from: NodeId, ack: SnapshotAck) {
        let snapshots = &mut self.snapshots;
        let sending = snapshots.sending.get_mut(&from).filter(|sending| sending.head.id == ack.id);
        if let Some(sending) = sending {
            let next = sending.on_ack(now, ack.progress, &snapshots.config);
            self.go_on_sending(now, from, next);
        }
    }
}

fn describe_error(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
