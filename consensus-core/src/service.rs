//! A state machine that does something of its own accord.

use bytes::Bytes;

use crate::{Instant, Reign};

/// What a state machine does of its own accord while its replica leads: look after things that end, and propose that
/// they have.
///
/// A state machine that is a service says so in [`StateMachine::service`](crate::StateMachine::service). Its replica
/// tells it what happens, and proposes what it asks for under the replica's own session. A service never changes what
/// is replicated by itself: that is done by [`StateMachine::apply`](crate::StateMachine::apply) alone, when what it
/// proposed has been decided. What it knows beyond that (deadlines, mostly) is the leader's, lasts for one reign, and
/// is no part of the replicated state.
///
/// Queries are how anybody reaches the service of whoever leads: the replica carries them there, confirms that it still
/// leads *after* the query arrived, and only then answers. So a service may count on what it was told in
/// [`Service::on_query`] if the query is answered at all.
pub trait Service {
    /// The replica leads in this reign from now on, or does not lead any more. Not everything decided before the reign
    /// need be applied yet; it is before a query is answered.
    fn on_role(&mut self, now: Instant, leads: Option<Reign>);

    /// True if queries may be answered now. What an answer promises leaves no entry in the log: a leader of whose reign
    /// nothing is applied cannot know what an earlier one may still have decided after it. Asked at the leader only;
    /// queries wait while it says no.
    fn may_answer(&self) -> bool {
        true
    }

    /// A linearizable query is here, at the leader, and its confirmation begins now. It is answered by
    /// [`StateMachine::query`](crate::StateMachine::query) once it is confirmed and everything decided before is
    /// applied; perhaps never, and perhaps after it was here again.
    fn on_query(&mut self, now: Instant, query: &[u8]);

    /// Something was applied.
    fn on_applied(&mut self, now: Instant);

    /// A deadline may be due.
    fn on_tick(&mut self, now: Instant);

    /// When to call [`Service::on_tick`]; `None` for never. It may lie in the past.
    fn next_deadline(&self) -> Option<Instant>;

    /// Appends what is to be proposed. It may be decided in a later reign, at another replica, or never.
    fn take_proposals(&mut self, into: &mut Vec<Bytes>);
}
