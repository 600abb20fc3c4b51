//! Sending a snapshot: one piece after the other, each once the one before was staged.

use synod_core::{Instant, NodeId, SnapshotChunk, SnapshotHead, SnapshotId, SnapshotProgress};

use super::SnapshotConfig;
use super::keeper::Job;

/// One snapshot on its way to one peer.
#[derive(Debug)]
pub(super) struct Sending {
    pub(super) head: SnapshotHead,
    /// The peer has the bytes before this offset.
    offset: u64,
    /// The peer was sent the piece there: when it is sent again. `None` while the piece is being read.
    again_at: Option<Instant>,
    /// How often a piece was sent since the last progress.
    tries: u32,
}

/// What is next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Wait,
    /// Read the piece at this offset.
    Read(u64),
    Taken,
    Failed,
}

impl Sending {
    pub(super) fn new(head: SnapshotHead) -> Sending {
        Sending { head, offset: 0, again_at: None, tries: 0 }
    }

    /// The piece was read and leaves.
    pub(super) fn sent(&mut self, now: Instant, config: &SnapshotConfig) {
        self.again_at = Some(now + config.resend_after);
    }

    /// The peer answered.
    pub(super) fn on_ack(
        &mut self,
        now: Instant,
        progress: SnapshotProgress,
        config: &SnapshotConfig,
    ) -> Next {
        match progress {
            SnapshotProgress::Taken => Next::Taken,
            SnapshotProgress::Refused => Next::Failed,
            SnapshotProgress::Staged(through) if through > self.head.len => Next::Failed,
            // An answer to a piece that was sent before: the one on its way brings news.
            SnapshotProgress::Staged(_) if self.again_at.is_none() => Next::Wait,
            SnapshotProgress::Staged(through) if through == self.offset => {
                // All of it is there, and the peer is busy with it.
                if through == self.head.len {
                    self.tries = 0;
                    self.again_at = Some(now + config.resend_after);
                }
                Next::Wait
            }
            SnapshotProgress::Staged(through) => {
                if through > self.offset {
                    self.tries = 0;
                } else {
                    // It lost what it had.
                    self.tries += 1;
                }
                self.offset = through;
                if through == self.head.len {
                    self.again_at = Some(now + config.resend_after);
                    return Next::Wait;
                }
                self.again_at = None;
                Next::Read(through)
            }
        }
    }

    /// Time has passed.
    pub(super) fn on_time(&mut self, now: Instant, config: &SnapshotConfig) -> Next {
        if self.again_at.is_none_or(|at| at > now) {
            return Next::Wait;
        }
        self.tries += 1;
        if self.tries > config.tries_max {
            return Next::Failed;
        }
        self.again_at = None;
        Next::Read(self.offset)
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.again_at
    }

    /// True if this piece is the one that is waited for.
    pub(super) fn awaits(&self, chunk: &SnapshotChunk) -> bool {
        self.again_at.is_none() && chunk.head.id == self.head.id && chunk.offset == self.offset
    }

    pub(super) fn read(&self, to: NodeId, config: &SnapshotConfig) -> Job {
        let id: SnapshotId = self.head.id;
        Job::Read { to, id, offset: self.offset, bytes_max: config.chunk_bytes }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use synod_core::{LogIndex, Membership, Reign, SnapshotMeta, Stamp};

    use super::*;

    fn sending(len: u64) -> Sending {
        let meta = SnapshotMeta {
            index: LogIndex(9),
            stamp: Stamp::default(),
            reign: Reign::default(),
            membership: Membership::of_ids([1]).unwrap(),
        };
        let id = SnapshotId { index: LogIndex(9), ..SnapshotId::default() };
        Sending::new(SnapshotHead { id, meta, len, checksum: 0 })
    }

    #[test]
    fn a_piece_is_sent_again_and_given_up_in_the_end() {
        let config = SnapshotConfig { tries_max: 2, ..SnapshotConfig::default() };
        let mut sending = sending(10);
        let mut now = Instant(0);
        for _ in 0..2 {
            sending.sent(now, &config);
            assert_eq!(sending.on_time(now, &config), Next::Wait);
            now += config.resend_after;
            assert_eq!(sending.on_time(now, &config), Next::Read(0));
        }
        sending.sent(now, &config);
        assert_eq!(sending.on_time(now + config.resend_after, &config), Next::Failed);
    }

    #[test]
    fn it_goes_on_where_the_receiver_says_and_not_by_answers_to_earlier_pieces() {
        let config = SnapshotConfig::default();
        let mut sending = sending(10);
        sending.sent(Instant(0), &config);
        assert_eq!(sending.on_ack(Instant(1), SnapshotProgress::Staged(4), &config), Next::Read(4));
        assert_eq!(sending.on_ack(Instant(1), SnapshotProgress::Staged(4), &config), Next::Wait);
        sending.sent(Instant(2), &config);
        assert_eq!(sending.on_ack(Instant(3), SnapshotProgress::Staged(4), &config), Next::Wait);
        assert_eq!(sending.on_ack(Instant(3), SnapshotProgress::Staged(0), &config), Next::Read(0));
        sending.sent(Instant(4), &config);
        assert_eq!(sending.on_ack(Instant(5), SnapshotProgress::Staged(11), &config), Next::Failed);
        assert_eq!(sending.on_ack(Instant(5), SnapshotProgress::Staged(10), &config), Next::Wait);
        assert_eq!(sending.deadline(), Some(Instant(5) + config.resend_after));
        let later = Instant(5) + config.resend_after + Duration::from_nanos(1);
        assert_eq!(sending.on_time(later, &config), Next::Read(10), "asks how it stands");
        assert_eq!(sending.on_ack(later, SnapshotProgress::Taken, &config), Next::Taken);
    }
}
