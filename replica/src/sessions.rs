//! The session table: replicated state, changed by applied entries and by nothing else.
//!
//! It keeps at most `sessions_max` sessions, each with at most `window` replies. Their size is not bounded here. A
//! reply is known only once its command is applied, and then it must be kept, or a retry of an applied command
//! would have no answer; and whether the *next* command fits cannot depend on it, because replicas apply in batches
//! of different lengths and would judge it before or after. So what the table weighs is the state machine's
//! business: `window * sessions_max` times its largest reply at most, and the replica's status tells the sum.

use std::collections::{BTreeMap, VecDeque};

use bytes::{BufMut, Bytes, BytesMut};
use synod_core::{
    ClientId, DecodeError, Incarnation, LogIndex, NodeId, RequestId, Sequence, SessionLimits, Wire,
    WireReader,
};

use crate::Order;
use crate::fixed_map::FixedMap;

/// The sessions of a cluster, the same on every replica at the same applied index.
#[derive(Clone, Debug)]
pub(crate) struct Sessions {
    limits: SessionLimits,
    table: FixedMap<ClientId, Session>,
    by_opener: BTreeMap<Opener, ClientId>,
    /// What the stored replies weigh.
    reply_bytes: usize,
}

/// Who opened a session: one request of one life of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Opener {
    pub(crate) node: NodeId,
    pub(crate) incarnation: Incarnation,
    pub(crate) nonce: u64,
}

#[derive(Clone, Debug)]
struct Session {
    order: Order,
    opener: Opener,
    last_applied: LogIndex,
    /// Everything below is settled; the front of `replies` is the reply to this number.
    first_incomplete: Sequence,
    /// The number after the last one applied; what an ordered session waits for.
    next: Sequence,
    replies: VecDeque<Slot>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Slot {
    /// Not applied yet.
    Open,
    /// Applied within the batch under way; its reply is stored when the batch ends.
    Applying,
    Applied(Bytes),
}

impl Slot {
    fn weight(&self) -> usize {
        match self {
            Slot::Applied(reply) => reply.len(),
            Slot::Open | Slot::Applying => 0,
        }
    }
}

/// What an entry of a session means at its place in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Apply it and hand the reply to [`Sessions::store`].
    Apply,
    /// Applied before; this was the reply (`None`: in this very batch).
    Known(Option<Bytes>),
    /// Below what its client has settled: nobody waits for it.
    Settled,
    /// No such session.
    Expired,
    /// Its predecessor in an ordered session is not applied yet. Nothing changed.
    OutOfOrder,
    /// Too far beyond what its client has settled. Nothing changed.
    BeyondWindow,
}

/// What an entry of kind `Session` asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SessionOp {
    /// Open a session; the entry's sequence is the opener's nonce.
    Open { order: Order, node: NodeId, incarnation: Incarnation },
    /// End it.
    Close { client: ClientId },
}

impl Sessions {
    pub(crate) fn new(limits: SessionLimits) -> Sessions {
        Sessions { limits, table: FixedMap::default(), by_opener: BTreeMap::new(), reply_bytes: 0 }
    }

    /// Opens a session at `index`, or finds the one that an earlier copy of the same request opened. Beyond
    /// the cap the session that was applied to least recently is evicted.
    pub(crate) fn open(&mut self, index: LogIndex, opener: Opener, order: Order) -> ClientId {
        if let Some(client) = self.by_opener.get(&opener) {
            return *client;
        }
        if self.table.len() >= self.limits.sessions_max as usize {
            let least = self.table.iter().map(|(client, session)| (session.last_applied, *client)).min();
            if let Some((_, client)) = least {
                self.close(client);
            }
        }
        let client = ClientId(index.0);
        let session = Session {
            order,
            opener,
            last_applied: index,
            first_incomplete: Sequence(1),
            next: Sequence(1),
            replies: VecDeque::new(),
        };
        self.table.insert(client, session);
        self.by_opener.insert(opener, client);
        client
    }

    /// Ends a session.
    pub(crate) fn close(&mut self, client: ClientId) {
        if let Some(session) = self.table.remove(&client) {
            self.by_opener.remove(&session.opener);
            self.reply_bytes -= session.replies.iter().map(Slot::weight).sum::<usize>();
        }
    }

    /// Judges the command that was decided at `index` and, if it is to be applied, records that it was.
    pub(crate) fn judge(&mut self, index: LogIndex, request: RequestId) -> Verdict {
        let Some(session) = self.table.get_mut(&request.client) else { return Verdict::Expired };
        if request.sequence < session.first_incomplete {
            return Verdict::Settled;
        }
        // A client cannot have settled the command that it proposes.
        let settled = request.first_incomplete.min(request.sequence).max(session.first_incomplete);
        let ahead = request.sequence.0 - settled.0;
        if ahead >= u64::from(self.limits.window) {
            return Verdict::BeyondWindow;
        }
        let at = usize::try_from(request.sequence.0 - session.first_incomplete.0);
        match at.ok().and_then(|at| session.replies.get(at)) {
            Some(Slot::Applied(reply)) => return Verdict::Known(Some(reply.clone())),
            Some(Slot::Applying) => return Verdict::Known(None),
            Some(Slot::Open) | None => {}
        }
        if session.order == Order::Ordered && request.sequence > session.next.max(settled) {
            return Verdict::OutOfOrder;
        }
        self.reply_bytes -= session.settle_below(settled);
        session.last_applied = index;
        session.next = session.next.max(Sequence(request.sequence.0.saturating_add(1)));
        let at = usize::try_from(ahead).expect("inside the window");
        if at == session.replies.len() {
            session.replies.push_back(Slot::Applying);
        } else {
            if at > session.replies.len() {
                session.replies.resize(at + 1, Slot::Open);
            }
            session.replies[at] = Slot::Applying;
        }
        Verdict::Apply
    }

    /// Stores the reply to a command that [`Sessions::judge`] let through.
    pub(crate) fn store(&mut self, request: RequestId, reply: &Bytes) {
        // The session may have been evicted, or the command settled, later in the same batch.
        let Some(session) = self.table.get_mut(&request.client) else { return };
        let Some(at) = request.sequence.0.checked_sub(session.first_incomplete.0) else { return };
        if let Some(slot) = usize::try_from(at).ok().and_then(|at| session.replies.get_mut(at)) {
            self.reply_bytes += reply.len();
            *slot = Slot::Applied(reply.clone());
        }
    }

    pub(crate) fn limits(&self) -> SessionLimits {
        self.limits
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// What the stored replies weigh, in bytes.
    pub(crate) fn reply_bytes(&self) -> usize {
        self.reply_bytes
    }
}

impl Session {
    /// Forgets the replies below `settled`; what they weighed.
    fn settle_below(&mut self, settled: Sequence) -> usize {
        let mut freed = 0;
        while self.first_incomplete < settled {
            let Some(slot) = self.replies.pop_front() else {
                self.first_incomplete = settled;
                break;
            };
            freed += slot.weight();
            self.first_incomplete = self.first_incomplete.next();
        }
        freed
    }
}

impl Sessions {
    /// The table as part of a snapshot; equal tables give equal bytes.
    pub(crate) fn encode(&self) -> Bytes {
        let mut table: Vec<(&ClientId, &Session)> = self.table.iter().collect();
        table.sort_by_key(|(client, _)| **client);
        let slots: usize = table.iter().map(|(_, session)| session.replies.len()).sum();
        let mut out = BytesMut::with_capacity(8 + table.len() * SESSION_LEN + slots * 5 + self.reply_bytes);
        out.put_u64_le(table.len() as u64);
        for (client, session) in table {
            let Session { order, opener, last_applied, first_incomplete, next, replies } = session;
            out.put_u64_le(client.0);
            out.put_u8(u8::from(*order == Order::Ordered));
            out.put_u64_le(opener.node.0);
            out.put_u64_le(opener.incarnation.0);
            out.put_u64_le(opener.nonce);
            out.put_u64_le(last_applied.0);
            out.put_u64_le(first_incomplete.0);
            out.put_u64_le(next.0);
            out.put_u32_le(u32::try_from(replies.len()).expect("a window of u32"));
            for slot in replies {
                match slot {
                    Slot::Open => out.put_u8(0),
                    Slot::Applied(reply) => {
                        out.put_u8(1);
                        out.put_u32_le(u32::try_from(reply.len()).expect("a reply fits into a message"));
                        out.put_slice(reply);
                    }
                    Slot::Applying => unreachable!("a snapshot is taken between batches"),
                }
            }
        }
        out.freeze()
    }

    /// The table of a snapshot, under the limits that hold now.
    pub(crate) fn decode(limits: SessionLimits, bytes: Bytes) -> Result<Sessions, DecodeError> {
        const IMPOSSIBLE: DecodeError = DecodeError::Impossible { what: "session table" };
        let mut sessions = Sessions::new(limits);
        let mut from = WireReader::new(bytes);
        for _ in 0..from.u64()? {
            let client = ClientId(from.u64()?);
            let order = if from.bool()? { Order::Ordered } else { Order::Unordered };
            let (node, incarnation) = (NodeId(from.u64()?), Incarnation(from.u64()?));
            let opener = Opener { node, incarnation, nonce: from.u64()? };
            let last_applied = LogIndex(from.u64()?);
            let (first_incomplete, next) = (Sequence(from.u64()?), Sequence(from.u64()?));
            let mut replies = VecDeque::new();
            for _ in 0..from.count(1)? {
                replies.push_back(match from.u8()? {
                    0 => Slot::Open,
                    // A copy, so that one reply does not keep the whole table in memory.
                    1 => Slot::Applied(Bytes::copy_from_slice(&from.bytes()?)),
                    value => return Err(DecodeError::Unknown { what: "reply", value: u64::from(value) }),
                });
            }
            sessions.reply_bytes += replies.iter().map(Slot::weight).sum::<usize>();
            let session = Session { order, opener, last_applied, first_incomplete, next, replies };
            if sessions.table.insert(client, session).is_some()
                || sessions.by_opener.insert(opener, client).is_some()
            {
                return Err(IMPOSSIBLE);
            }
        }
        from.finish()?;
        Ok(sessions)
    }
}

/// Bytes of a session without its replies.
const SESSION_LEN: usize = 8 + 1 + 3 * 8 + 3 * 8 + 4;

impl Wire for SessionOp {
    fn wire_len(&self) -> usize {
        match self {
            SessionOp::Open { .. } => 18,
            SessionOp::Close { .. } => 9,
        }
    }

    fn encode(&self, out: &mut BytesMut) {
        match self {
            SessionOp::Open { order, node, incarnation } => {
                out.put_u8(0);
                out.put_u8(u8::from(*order == Order::Ordered));
                out.put_u64_le(node.0);
                out.put_u64_le(incarnation.0);
            }
            SessionOp::Close { client } => {
                out.put_u8(1);
                out.put_u64_le(client.0);
            }
        }
    }

    fn decode(from: &mut WireReader) -> Result<SessionOp, DecodeError> {
        match from.u8()? {
            0 => {
                let order = if from.bool()? { Order::Ordered } else { Order::Unordered };
                let (node, incarnation) = (NodeId(from.u64()?), Incarnation(from.u64()?));
                Ok(SessionOp::Open { order, node, incarnation })
            }
            1 => Ok(SessionOp::Close { client: ClientId(from.u64()?) }),
            value => Err(DecodeError::Unknown { what: "session operation", value: u64::from(value) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request(client: ClientId, sequence: u64, first_incomplete: u64) -> RequestId {
        RequestId { client, sequence: Sequence(sequence), first_incomplete: Sequence(first_incomplete) }
    }

    fn table(window: u32, sessions_max: u32) -> Sessions {
        Sessions::new(SessionLimits { window, sessions_max })
    }

    fn opener(nonce: u64) -> Opener {
        Opener { node: NodeId(1), incarnation: Incarnation(1), nonce }
    }

    fn apply(sessions: &mut Sessions, index: u64, request: RequestId) -> Verdict {
        let verdict = sessions.judge(LogIndex(index), request);
        if verdict == Verdict::Apply {
            sessions.store(request, &Bytes::from(index.to_string()));
        }
        verdict
    }

    #[test]
    fn a_command_decided_twice_is_applied_once_and_answered_alike() {
        let mut sessions = table(8, 4);
        let client = sessions.open(LogIndex(1), opener(77), Order::Unordered);
        assert_eq!(apply(&mut sessions, 2, request(client, 1, 1)), Verdict::Apply);
        assert_eq!(apply(&mut sessions, 3, request(client, 1, 1)), Verdict::Known(Some(Bytes::from("2"))));
    }

    #[test]
    fn a_copy_within_the_same_batch_is_known_before_its_reply_is() {
        let mut sessions = table(8, 4);
        let client = sessions.open(LogIndex(1), opener(77), Order::Unordered);
        assert_eq!(sessions.judge(LogIndex(2), request(client, 1, 1)), Verdict::Apply);
        assert_eq!(sessions.judge(LogIndex(3), request(client, 1, 1)), Verdict::Known(None));
    }

    #[test]
    fn an_unordered_session_applies_in_any_order_within_its_window() {
        let mut sessions = table(4, 4);
        let client = sessions.open(LogIndex(1), opener(77), Order::Unordered);
        assert_eq!(apply(&mut sessions, 2, request(client, 4, 1)), Verdict::Apply);
        assert_eq!(apply(&mut sessions, 3, request(client, 5, 1)), Verdict::BeyondWindow);
        assert_eq!(apply(&mut sessions, 4, request(client, 1, 1)), Verdict::Apply);
        assert_eq!(apply(&mut sessions, 5, request(client, 5, 2)), Verdict::Apply);
        assert_eq!(apply(&mut sessions, 6, request(client, 1, 1)), Verdict::Settled);
        assert_eq!(apply(&mut sessions, 7, request(client, 4, 2)), Verdict::Known(Some(Bytes::from("2"))));
    }

    #[test]
    fn a_command_beyond_the_window_changes_nothing_and_can_be_applied_later() {
        let mut sessions = table(2, 4);
        let client = sessions.open(LogIndex(1), opener(77), Order::Unordered);
        assert_eq!(apply(&mut sessions, 2, request(client, 3, 1)), Verdict::BeyondWindow);
        assert_eq!(apply(&mut sessions, 3, request(client, 1, 1)), Verdict::Apply);
        assert_eq!(apply(&mut sessions, 4, request(client, 3, 2)), Verdict::Apply);
    }

    #[test]
    fn an_ordered_session_applies_n_only_after_n_minus_1() {
        let mut sessions = table(8, 4);
        let client = sessions.open(LogIndex(1), opener(77), Order::Ordered);
        assert_eq!(apply(&mut sessions, 2, request(client, 2, 1)), Verdict::OutOfOrder);
        assert_eq!(apply(&mut sessions, 3, request(client, 1, 1)), Verdict::Apply);
        assert_eq!(apply(&mut sessions, 4, request(client, 3, 1)), Verdict::OutOfOrder);
        assert_eq!(apply(&mut sessions, 5, request(client, 2, 1)), Verdict::Apply);
        assert_eq!(apply(&mut sessions, 6, request(client, 3, 1)), Verdict::Apply);
        assert_eq!(apply(&mut sessions, 7, request(client, 2, 1)), Verdict::Known(Some(Bytes::from("5"))));
    }

    #[test]
    fn an_abandoned_command_of_an_ordered_session_is_stepped_over_and_never_applied_later() {
        let mut sessions = table(8, 4);
        let client = sessions.open(LogIndex(1), opener(77), Order::Ordered);
        assert_eq!(apply(&mut sessions, 2, request(client, 1, 1)), Verdict::Apply);
        assert_eq!(apply(&mut sessions, 3, request(client, 3, 3)), Verdict::Apply);
        assert_eq!(apply(&mut sessions, 4, request(client, 2, 2)), Verdict::Settled);
    }

    #[test]
    fn a_refusal_leaves_the_session_as_it_was() {
        let mut sessions = table(4, 4);
        let client = sessions.open(LogIndex(1), opener(77), Order::Ordered);
        apply(&mut sessions, 2, request(client, 1, 1));
        let before = format!("{:?}", sessions.table);
        assert_eq!(apply(&mut sessions, 3, request(client, 4, 2)), Verdict::OutOfOrder);
        assert_eq!(apply(&mut sessions, 4, request(client, 60, 2)), Verdict::BeyondWindow);
        assert_eq!(apply(&mut sessions, 5, request(ClientId(99), 1, 1)), Verdict::Expired);
        assert_eq!(format!("{:?}", sessions.table), before);
    }

    #[test]
    fn the_session_applied_to_least_recently_makes_room() {
        let mut sessions = table(4, 2);
        let a = sessions.open(LogIndex(1), opener(1), Order::Unordered);
        let b = sessions.open(LogIndex(2), opener(2), Order::Unordered);
        apply(&mut sessions, 3, request(a, 1, 1));
        let c = sessions.open(LogIndex(4), opener(3), Order::Unordered);
        assert_eq!(apply(&mut sessions, 5, request(b, 1, 1)), Verdict::Expired);
        assert_eq!(apply(&mut sessions, 6, request(a, 2, 1)), Verdict::Apply);
        assert_eq!(apply(&mut sessions, 7, request(c, 1, 1)), Verdict::Apply);
        assert_eq!(sessions.len(), 2);
    }

    #[test]
    fn a_repeated_open_finds_the_first_session() {
        let mut sessions = table(4, 2);
        let client = sessions.open(LogIndex(1), opener(5), Order::Unordered);
        assert_eq!(sessions.open(LogIndex(2), opener(5), Order::Unordered), client);
        let other_life = Opener { incarnation: Incarnation(2), ..opener(5) };
        assert_eq!(sessions.open(LogIndex(3), other_life, Order::Unordered), ClientId(3));
        sessions.close(client);
        assert_eq!(sessions.open(LogIndex(4), opener(5), Order::Unordered), ClientId(4));
    }

    #[test]
    fn what_stored_replies_weigh_is_what_is_stored() {
        let mut sessions = table(8, 2);
        let a = sessions.open(LogIndex(1), opener(1), Order::Unordered);
        let b = sessions.open(LogIndex(2), opener(2), Order::Unordered);
        for (index, (client, sequence, first)) in
            [(a, 1, 1), (a, 3, 1), (b, 1, 1), (a, 1, 1), (a, 4, 4), (b, 5, 3)].into_iter().enumerate()
        {
            apply(&mut sessions, 100 + index as u64, request(client, sequence, first));
        }
        assert_eq!(sessions.reply_bytes(), 6, "number 4 of one and number 5 of the other, three digits each");
        sessions.open(LogIndex(200), opener(3), Order::Unordered);
        assert_eq!(sessions.reply_bytes(), 3, "one was evicted");
        sessions.close(b);
        assert_eq!(sessions.reply_bytes(), 0);
    }

    #[test]
    fn what_ends_within_the_batch_that_applied_it_is_not_stored() {
        let mut sessions = table(8, 1);
        let a = sessions.open(LogIndex(1), opener(1), Order::Unordered);
        assert_eq!(sessions.judge(LogIndex(2), request(a, 1, 1)), Verdict::Apply);
        assert_eq!(sessions.judge(LogIndex(3), request(a, 2, 2)), Verdict::Apply);
        sessions.store(request(a, 1, 1), &Bytes::from("settled"));
        assert_eq!(sessions.reply_bytes(), 0);
        let b = sessions.open(LogIndex(4), opener(2), Order::Unordered);
        sessions.store(request(a, 2, 2), &Bytes::from("evicted"));
        assert_eq!((sessions.reply_bytes(), sessions.len()), (0, 1));
        assert_eq!(apply(&mut sessions, 5, request(a, 2, 2)), Verdict::Expired);
        assert_eq!(apply(&mut sessions, 6, request(b, 1, 1)), Verdict::Apply);
    }

    #[derive(Clone, Debug)]
    enum Entry {
        Open(u64, bool),
        Close(u64),
        Command { client: u64, sequence: u64, first_incomplete: u64 },
    }

    fn entry() -> impl Strategy<Value = Entry> {
        prop_oneof![
            2 => (1u64..6, any::<bool>()).prop_map(|(nonce, ordered)| Entry::Open(nonce, ordered)),
            1 => (1u64..30).prop_map(Entry::Close),
            12 => (1u64..30, 1u64..10, 0u64..10).prop_map(|(client, sequence, first_incomplete)| {
                Entry::Command { client, sequence, first_incomplete }
            }),
        ]
    }

    /// Applies a log as a replica does, in batches that end after these positions: what was said of each entry,
    /// and what is left.
    fn replay(log: &[Entry], batch_ends: impl Fn(usize) -> bool) -> (Vec<String>, String, usize) {
        let mut sessions = table(4, 3);
        let (mut said, mut batch) = (Vec::new(), Vec::new());
        for (position, entry) in log.iter().enumerate() {
            let index = LogIndex(position as u64 + 1);
            said.push(match *entry {
                Entry::Open(nonce, ordered) => {
                    let order = if ordered { Order::Ordered } else { Order::Unordered };
                    sessions.open(index, opener(nonce), order).to_string()
                }
                Entry::Close(client) => {
                    sessions.close(ClientId(client));
                    String::new()
                }
                Entry::Command { client, sequence, first_incomplete } => {
                    let request = request(ClientId(client), sequence, first_incomplete);
                    match sessions.judge(index, request) {
                        Verdict::Apply => {
                            batch.push((request, Bytes::from(vec![b'r'; position])));
                            "applied".to_owned()
                        }
                        // Whether its reply is there already is the one thing that may differ.
                        Verdict::Known(_) => "known".to_owned(),
                        other => format!("{other:?}"),
                    }
                }
            });
            if batch_ends(position) || position + 1 == log.len() {
                for (request, reply) in batch.drain(..) {
                    sessions.store(request, &reply);
                }
            }
        }
        let mut left: Vec<String> = sessions.table.iter().map(|entry| format!("{entry:?}")).collect();
        left.sort();
        (said, left.join(" "), sessions.reply_bytes())
    }

    proptest! {
        /// A replica that goes on from a snapshot must judge as one that applied everything.
        #[test]
        fn a_table_goes_on_from_its_bytes_as_if_nothing_had_been(
            log in proptest::collection::vec(entry(), 0..80),
            at in 0..80usize,
        ) {
            let mut sessions = table(4, 3);
            let mut restored = table(4, 3);
            for (position, entry) in log.iter().enumerate() {
                if position == at {
                    let bytes = sessions.encode();
                    for len in 0..bytes.len() {
                        prop_assert!(Sessions::decode(sessions.limits, bytes.slice(..len)).is_err());
                    }
                    restored = Sessions::decode(sessions.limits, bytes).unwrap();
                }
                let index = LogIndex(position as u64 + 1);
                let mut verdicts = Vec::new();
                for table in [&mut sessions, &mut restored] {
                    verdicts.push(match *entry {
                        Entry::Open(nonce, ordered) => {
                            let order = if ordered { Order::Ordered } else { Order::Unordered };
                            table.open(index, opener(nonce), order).to_string()
                        }
                        Entry::Close(client) => {
                            table.close(ClientId(client));
                            String::new()
                        }
                        Entry::Command { client, sequence, first_incomplete } => {
                            let request = request(ClientId(client), sequence, first_incomplete);
                            format!("{:?}", apply(table, index.0, request))
                        }
                    });
                }
                if position >= at {
                    prop_assert_eq!(&verdicts[0], &verdicts[1]);
                    prop_assert_eq!(sessions.encode(), restored.encode());
                    prop_assert_eq!(sessions.reply_bytes(), restored.reply_bytes());
                }
            }
        }

        /// Replicas apply the same log in different batches, and must come to the same table.
        #[test]
        fn batches_of_any_length_come_to_the_same_table(
            log in proptest::collection::vec(entry(), 0..80),
            ends in proptest::collection::vec(any::<bool>(), 80),
        ) {
            let one_by_one = replay(&log, |_| true);
            prop_assert_eq!(&replay(&log, |_| false), &one_by_one);
            prop_assert_eq!(&replay(&log, |position| ends[position]), &one_by_one);
        }
    }

    #[test]
    fn hostile_numbers_neither_panic_nor_allocate() {
        let mut sessions = table(4, 2);
        let client = sessions.open(LogIndex(1), opener(5), Order::Ordered);
        for (sequence, first) in [(u64::MAX, 0), (u64::MAX, u64::MAX), (0, 0), (0, u64::MAX), (7, u64::MAX)] {
            let _ = apply(&mut sessions, 2, request(client, sequence, first));
        }
        assert!(sessions.table[&client].replies.len() <= 4);
    }
}
