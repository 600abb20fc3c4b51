//! Receiving a snapshot: staged piece by piece, verified whole, offered to the protocol, and taken over by the state
//! machine. One at a time.

use synod_core::{
    Input, Instant, LogCall, NodeId, Packet, Protocol, ProtocolConfig, SnapshotAck, SnapshotChunk,
    SnapshotContents, SnapshotError, SnapshotHead, SnapshotId, SnapshotProgress, SparseLog, StateMachine,
};

use super::keeper::{Job, Staged};
use super::restore;
use crate::{Replica, ReplicaError};

/// The snapshot that is being received.
#[derive(Debug)]
pub(super) struct Receiving {
    head: SnapshotHead,
    /// Whoever sent the last piece.
    from: NodeId,
    heard_at: Instant,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// The bytes before this offset are here.
    Waits(u64),
    /// The next piece is being written.
    Writes,
    /// All of it is here, and the protocol was told; `true` once it said that it needs none.
    Offered(SnapshotContents, bool),
}

impl<P, S> Replica<P, S>
where
    P: Protocol,
    P::Config: ProtocolConfig,
    S: StateMachine,
{
    pub(crate) fn on_snapshot_chunk(&mut self, now: Instant, from: NodeId, chunk: SnapshotChunk) {
        let id = chunk.head.id;
        if !self.snapshots.stored {
            self.acknowledge(from, id, SnapshotProgress::Refused);
            return;
        }
        if crc32c::crc32c(&chunk.bytes) != chunk.checksum {
            self.counters.rejected += 1;
            return;
        }
        let patience = self.snapshots.config.resend_after * self.snapshots.config.tries_max;
        let progress = match &mut self.snapshots.receiving {
            Some(receiving) if receiving.head.id == id => {
                if receiving.head != chunk.head {
                    self.counters.rejected += 1;
                    return;
                }
                receiving.from = from;
                receiving.heard_at = now;
                match receiving.stage {
                    Stage::Waits(through) if chunk.offset == through && !chunk.bytes.is_empty() => {
                        receiving.stage = Stage::Writes;
                        self.snapshots.do_next(Job::Stage(chunk));
                        return;
                    }
                    Stage::Waits(through) => SnapshotProgress::Staged(through),
                    // Answered when that is done.
                    Stage::Writes => return,
                    Stage::Offered(..) => SnapshotProgress::Staged(receiving.head.len),
                }
            }
            _ if id.index <= self.decided => SnapshotProgress::Taken,
            // Only whoever fell silent makes room for another one, or whoever has less to offer.
            Some(Receiving { stage: Stage::Writes | Stage::Offered(..), .. }) => SnapshotProgress::Refused,
            Some(receiving) if receiving.head.id.index >= id.index && now < receiving.heard_at + patience => {
                SnapshotProgress::Refused
            }
            _ if chunk.offset > 0 || chunk.bytes.is_empty() => SnapshotProgress::Staged(0),
            _ => {
                let head = chunk.head.clone();
                let stage = Stage::Writes;
                self.snapshots.receiving = Some(Receiving { head, from, heard_at: now, stage });
                self.snapshots.do_next(Job::Stage(chunk));
                return;
            }
        };
        self.acknowledge(from, id, progress);
    }

    pub(super) fn on_staged(&mut self, now: Instant, id: SnapshotId, result: Result<Staged, SnapshotError>) {
        let Some(receiving) = self.snapshots.receiving.as_mut().filter(|receiving| receiving.head.id == id)
        else {
            return;
        };
        let from = receiving.from;
        let progress = match result {
            Ok(Staged::Through(through)) => {
                receiving.stage = Stage::Waits(through);
                SnapshotProgress::Staged(through)
            }
            Ok(Staged::Whole(contents)) => {
                receiving.stage = Stage::Offered(contents, false);
                let (len, meta) = (receiving.head.len, receiving.head.meta.clone());
                self.snapshots.counters.received += 1;
                self.host.step(now, Input::Call(LogCall::SnapshotArrived { id, meta }));
                SnapshotProgress::Staged(len)
            }
            Err(_) => {
                self.snapshots.receiving = None;
                self.snapshots.counters.failed += 1;
                SnapshotProgress::Refused
            }
        };
        self.acknowledge(from, id, progress);
    }

    /// The protocol needs no such snapshot.
    pub(crate) fn on_discard_snapshot(&mut self, id: SnapshotId) {
        if let Some(Receiving { head, stage: Stage::Offered(_, unneeded), .. }) =
            &mut self.snapshots.receiving
            && head.id == id
        {
            *unneeded = true;
        }
    }

    /// After the protocol was heard: what was offered is taken over, or forgotten.
    pub(crate) fn take_over_snapshot(&mut self, now: Instant) -> Result<(), ReplicaError> {
        if !matches!(&self.snapshots.receiving, Some(Receiving { stage: Stage::Offered(..), .. })) {
            return Ok(());
        }
        let Some(Receiving { head, from, stage: Stage::Offered(mut contents, unneeded), .. }) =
            self.snapshots.receiving.take()
        else {
            unreachable!("just seen");
        };
        let id = head.id;
        if unneeded || self.decided < id.index {
            self.snapshots.counters.discarded += 1;
            self.snapshots.doomed.push(id);
            let has_it = self.decided >= id.index;
            let progress = if has_it { SnapshotProgress::Taken } else { SnapshotProgress::Refused };
            self.acknowledge(from, id, progress);
            return Ok(());
        }
        assert!(id.index > self.applied, "a state machine never goes back");
        let limits = self.sessions.limits();
        self.sessions = restore(&mut contents, limits, &mut self.state_machine)?;
        self.applied = id.index;
        self.applied_reign = head.meta.reign;
        self.backlog = SparseLog::new();
        self.backlog_load = None;
        // Their outcomes are in the table: whoever still asks is answered from there.
        self.origins.clear();
        let snapshots = &mut self.snapshots;
        // The log between them is gone: the earlier ones have nothing to go on with.
        snapshots.doomed.extend(snapshots.kept.drain(..).map(|head| head.id));
        snapshots.kept.push(head);
        snapshots.bytes_since = 0;
        snapshots.taken_at = now;
        snapshots.counters.installed += 1;
        self.acknowledge(from, id, SnapshotProgress::Taken);
        Ok(())
    }

    fn acknowledge(&mut self, to: NodeId, id: SnapshotId, progress: SnapshotProgress) {
        self.host.send(to, Packet::SnapshotAck(SnapshotAck { id, progress }));
    }
}
