//! The handle of a node.

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use synod_core::{ClientId, Decode, NodeId, Operation, ProtocolConfig, Sequence};
use synod_replica::{Consistency, Order, SessionKey};
use tokio::sync::watch;

use crate::calls::{Answer, Ask, Call, Inbox, NotTaken, Promise, Slot, Slots, Wanted, Why};
use crate::metrics::Counters;
use crate::{
    Health, Metrics, NoStateMachine, NodeBuilder, NodeStatus, ProposeError, ReadError, SessionError,
    StopReason, TransferError,
};

/// A running replica, as its users hold it. Cloning is cheap; clones are handles of the same node.
///
/// A handle belongs to no runtime: it may be used from any thread and any executor. The node itself runs as
/// one task on the tokio runtime that started it, and ends with [`Node::shutdown`], with [`Node::abort`],
/// when the last handle is dropped, or when its storage or state machine fails.
///
/// # Cancel safety
/// Every call takes effect when it is made, and its future only waits for the answer. Dropping that future
/// never harms the node: the command may still be applied, and the answer is thrown away.
#[derive(Debug)]
pub struct Node {
    shared: Arc<Shared>,
    /// Its last clone ends the node.
    alive: Arc<Alive>,
    slots: Slots,
    deadline: Duration,
}

/// What handles and driver share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) node: NodeId,
    pub(crate) inbox: Inbox,
    pub(crate) counters: Arc<Counters>,
    pub(crate) status: watch::Sender<NodeStatus>,
    sessions: AtomicU64,
}

impl Shared {
    pub(crate) fn new(
        node: NodeId,
        (commands_max, bytes_max): (usize, usize),
        counters: Arc<Counters>,
        status: NodeStatus,
    ) -> Shared {
        let inbox = Inbox::new(commands_max, bytes_max);
        Shared { node, inbox, counters, status: watch::Sender::new(status), sessions: AtomicU64::new(0) }
    }
}

#[derive(Debug)]
struct Alive(Arc<Shared>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.inbox.want(Wanted::Drain(Why::NoHandle));
    }
}

/// Tells callers and watchers of the end, whatever brought it about.
pub(crate) struct Ending {
    shared: Arc<Shared>,
    pub(crate) reason: StopReason,
}

impl Ending {
    pub(crate) fn of(shared: Arc<Shared>) -> Ending {
        Ending { shared, reason: StopReason::RuntimeGone }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.reason = StopReason::Panicked;
        }
        let reason = self.reason.clone();
        if reason.is_orderly() {
            tracing::info!(node = %self.shared.node, %reason, "stopped");
        } else {
            let cause = std::error::Error::source(&reason).map(ToString::to_string);
            tracing::error!(node = %self.shared.node, %reason, cause, "stopped");
        }
        for call in self.shared.inbox.close() {
            call.refuse();
        }
        self.shared.status.send_modify(|status| {
            status.leader = None;
            status.health = Health::Stopped(reason);
        });
    }
}

impl Clone for Node {
    fn clone(&self) -> Node {
        self.with_deadline(self.deadline)
    }
}

impl Node {
    /// Begins to build a node that speaks the protocol of `config`.
    pub fn builder<C: ProtocolConfig>(node: NodeId, config: C) -> NodeBuilder<C, NoStateMachine> {
        NodeBuilder::new(node, config)
    }

    pub(crate) fn new(shared: Arc<Shared>, deadline: Duration) -> Node {
        let alive = Arc::new(Alive(Arc::clone(&shared)));
        Node { shared, alive, slots: Slots::default(), deadline }
    }

    /// Another handle, whose calls wait `deadline` long.
    #[must_use]
    pub fn with_deadline(&self, deadline: Duration) -> Node {
        Node {
            shared: Arc::clone(&self.shared),
            alive: Arc::clone(&self.alive),
            slots: Slots::default(),
            deadline,
        }
    }

    /// Which node this is.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.shared.node
    }

    /// Proposes a command; the future gives the state machine's reply once the command is applied here or
    /// at the leader.
    ///
    /// The command is on its way when this returns, and the calls of one task go into the same batch if they
    /// are made before the first is awaited. It is applied once, however many leaders see it.
    ///
    /// # Errors
    /// [`ProposeError`], from the future.
    pub fn propose<O: Operation>(&self, command: O) -> Proposal<'_, O::Reply> {
        self.propose_in(SessionKey::OWN, command.encode(), self.deadline)
    }

    /// [`Node::propose`] with another deadline than the handle's.
    ///
    /// # Errors
    /// [`ProposeError`], from the future.
    pub fn propose_within<O: Operation>(&self, deadline: Duration, command: O) -> Proposal<'_, O::Reply> {
        self.propose_in(SessionKey::OWN, command.encode(), deadline)
    }

    /// Proposes commands in one call; the future gives their replies, in order, once all are answered.
    ///
    /// One waiter for many commands costs a fraction of many waiters: with 16 or more of them, a single
    /// client is several times faster. They are independent: each succeeds or fails by itself.
    ///
    /// # Errors
    /// [`ProposeError`] for each command, from the future.
    pub fn propose_many<O: Operation>(
        &self,
        commands: impl IntoIterator<Item = O>,
    ) -> Proposals<'_, O::Reply> {
        let commands = commands.into_iter().map(|command| command.encode()).collect();
        self.propose_many_in(SessionKey::OWN, commands, self.deadline)
    }

    /// Asks the state machine.
    ///
    /// [`Consistency::Linearizable`] shows every command acknowledged before this call, at any node; a node
    /// that does not lead hands the query to the leader. [`Consistency::Lease`] does too while clocks keep the bound
    /// that the protocol was configured with, and asks no quorum while the leader holds its lease.
    /// [`Consistency::Local`] shows what this node has applied.
    ///
    /// # Errors
    /// [`ReadError`], from the future.
    pub fn read<Q: Operation>(&self, query: Q, consistency: Consistency) -> Read<'_, Q::Reply> {
        self.read_within(self.deadline, query, consistency)
    }

    /// [`Node::read`] with another deadline than the handle's.
    ///
    /// # Errors
    /// [`ReadError`], from the future.
    pub fn read_within<Q: Operation>(
        &self,
        deadline: Duration,
        query: Q,
        consistency: Consistency,
    ) -> Read<'_, Q::Reply> {
        let ask = Ask::Read { query: query.encode(), consistency };
        let state = self.call(ask, deadline).map_err(|(why, _)| match why {
            NotTaken::Full => ReadError::Full,
            NotTaken::Stopped => ReadError::Stopped,
        });
        Read { waiter: self.waiter(state), answer: PhantomData }
    }

    /// Opens a session of its own: with [`Order::Ordered`], commands are applied in the order in which they
    /// are proposed through it, across any change of leaders.
    ///
    /// # Errors
    /// [`SessionError`] if it was not opened.
    ///
    /// # Cancel safety
    /// Cancel-safe: a session that was opened for nobody is closed.
    pub async fn session(&self, order: Order) -> Result<Session, SessionError> {
        let mut session = Session { node: self.clone(), key: self.next_session(), client: ClientId(0) };
        let ask = Ask::OpenSession { session: session.key, order };
        let state = self.call(ask, self.deadline).map_err(|(why, _)| match why {
            NotTaken::Full => SessionError::Full,
            NotTaken::Stopped => SessionError::Stopped,
        });
        let mut waiter = self.waiter(state);
        session.client = match std::future::poll_fn(|context| waiter.poll(context)).await? {
            Answer::Opened(result) => result?,
            Answer::Lost => return Err(SessionError::Stopped),
            other => panic!("a session opening is answered as one, not by {other:?}"),
        };
        Ok(session)
    }

    /// Takes over a session that was opened through another node, which is gone.
    ///
    /// `next` is the number of the next command proposed through it: 1 for the first one of the session, and
    /// so on. Commands below it count as settled. Proposing an unanswered command again under its old number
    /// is safe: it is applied once.
    #[must_use]
    pub fn attach_session(&self, client: ClientId, order: Order, next: Sequence) -> Session {
        let session = Session { node: self.clone(), key: self.next_session(), client };
        let ask = Ask::AttachSession { session: session.key, client, order, next };
        // A node that has stopped says so to the first proposal.
        let _ = self.shared.inbox.push(Call { ask, timeout: Duration::ZERO, promise: Promise::to_nobody() });
        session
    }

    /// Hands the leadership over, if it is here: to `to`, or to the voter that is furthest. Meanwhile proposals wait, and go
    /// to the next leader. Returns who leads.
    ///
    /// # Errors
    /// [`TransferError`] if the leadership is not here, or did not go where it should. After one election timeout in vain
    /// the old leader goes on.
    ///
    /// # Cancel safety
    /// Cancel-safe: the leadership is handed over all the same.
    pub async fn transfer(&self, to: Option<NodeId>) -> Result<NodeId, TransferError> {
        let state = self.call(Ask::Transfer { to }, self.deadline).map_err(|(why, _)| match why {
            NotTaken::Full => TransferError::Full,
            NotTaken::Stopped => TransferError::Stopped,
        });
        let mut waiter = self.waiter(state);
        match std::future::poll_fn(|context| waiter.poll(context)).await? {
            Answer::Transferred(result) => Ok(result?),
            Answer::Lost => Err(TransferError::Stopped),
            other => panic!("a transfer is answered as one, not by {other:?}"),
        }
    }

    /// How the node stands, as of the last publication: a few milliseconds ago at most.
    #[must_use]
    pub fn status(&self) -> NodeStatus {
        self.shared.status.borrow().clone()
    }

    /// The status as it changes.
    #[must_use]
    pub fn watch_status(&self) -> watch::Receiver<NodeStatus> {
        self.shared.status.subscribe()
    }

    /// What the node has done since its start.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        self.shared.counters.snapshot()
    }

    /// Ends the node in order: refuses new calls, hands the leadership over if it is here, answers open calls as long as
    /// the drain timeout allows, waits until what was written is durable, and joins task and threads. Returns when it has
    /// ended.
    ///
    /// # Cancel safety
    /// Cancel-safe: the node ends all the same.
    pub async fn shutdown(&self) -> StopReason {
        self.shared.inbox.want(Wanted::Drain(Why::Shutdown));
        self.stopped().await
    }

    /// Ends the node like a crash: everything volatile is dropped at once, nothing more is written or sent.
    /// What its storage had completed survives in the storage. Open proposals end `Unknown`. Returns when
    /// nothing is left, so that the storage can be opened again.
    ///
    /// # Cancel safety
    /// Cancel-safe: the node ends all the same.
    pub async fn abort(&self) -> StopReason {
        self.shared.inbox.want(Wanted::Abort);
        self.stopped().await
    }

    /// Waits until the node has ended, for whatever reason.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn stopped(&self) -> StopReason {
        let mut status = self.shared.status.subscribe();
        let last = status.wait_for(|status| status.stopped().is_some()).await;
        let last = last.expect("the sender is held by this handle");
        last.stopped().expect("just waited for").clone()
    }

    fn next_session(&self) -> SessionKey {
        SessionKey(self.shared.sessions.fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn propose_in<R>(&self, session: SessionKey, payload: Bytes, deadline: Duration) -> Proposal<'_, R> {
        let state = self.call(Ask::Propose { session, payload }, deadline).map_err(|(why, ask)| match ask {
            Ask::Propose { payload, .. } => not_taken(why, payload),
            _ => ProposeError::Unknown,
        });
        Proposal { waiter: self.waiter(state), reply: PhantomData }
    }

    fn propose_many_in<R>(
        &self,
        session: SessionKey,
        payloads: Vec<Bytes>,
        deadline: Duration,
    ) -> Proposals<'_, R> {
        let count = payloads.len();
        let state = if count == 0 {
            Err(Vec::new())
        } else {
            self.call(Ask::ProposeMany { session, payloads }, deadline).map_err(|(why, ask)| match ask {
                Ask::ProposeMany { payloads, .. } => {
                    payloads.into_iter().map(|payload| not_taken(why, payload)).collect()
                }
                _ => Vec::new(),
            })
        };
        Proposals { waiter: self.waiter(state), count, replies: PhantomData }
    }

    fn waiter<E>(&self, state: Result<Arc<Slot>, E>) -> Waiter<'_, E> {
        Waiter { state: Some(state), slots: &self.slots }
    }

    /// The slot to wait at, or the call handed back.
    fn call(&self, ask: Ask, timeout: Duration) -> Result<Arc<Slot>, (NotTaken, Ask)> {
        let (slot, promise) = self.slots.promise();
        match self.shared.inbox.push(Call { ask, timeout, promise }) {
            Ok(()) => Ok(slot),
            Err((why, call)) => Err((why, call.ask)),
        }
    }
}

fn not_taken(why: NotTaken, command: Bytes) -> ProposeError {
    match why {
        NotTaken::Full => ProposeError::Full { command },
        NotTaken::Stopped => ProposeError::Stopped { command },
    }
}

/// A client session: commands that are numbered together and applied once each, in order if it is ordered.
///
/// Dropping it closes it: what was proposed and not yet answered may or may not be applied.
#[derive(Debug)]
pub struct Session {
    node: Node,
    key: SessionKey,
    client: ClientId,
}

impl Session {
    /// The session's replicated id, under which another node can take it over:
    /// [`Node::attach_session`].
    #[must_use]
    pub fn client(&self) -> ClientId {
        self.client
    }

    /// Like [`Node::propose`], within this session. In an ordered session, commands are applied in the
    /// order of these calls, awaited or not.
    ///
    /// # Errors
    /// [`ProposeError`], from the future.
    pub fn propose<O: Operation>(&self, command: O) -> Proposal<'_, O::Reply> {
        self.node.propose_in(self.key, command.encode(), self.node.deadline)
    }

    /// [`Session::propose`] with another deadline than the handle's that opened the session.
    ///
    /// # Errors
    /// [`ProposeError`], from the future.
    pub fn propose_within<O: Operation>(&self, deadline: Duration, command: O) -> Proposal<'_, O::Reply> {
        self.node.propose_in(self.key, command.encode(), deadline)
    }

    /// Like [`Node::propose_many`], within this session.
    ///
    /// # Errors
    /// [`ProposeError`] for each command, from the future.
    pub fn propose_many<O: Operation>(
        &self,
        commands: impl IntoIterator<Item = O>,
    ) -> Proposals<'_, O::Reply> {
        let commands = commands.into_iter().map(|command| command.encode()).collect();
        self.node.propose_many_in(self.key, commands, self.node.deadline)
    }

    /// The node it goes through.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.node
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let ask = Ask::CloseSession { session: self.key };
        let call = Call { ask, timeout: Duration::ZERO, promise: Promise::to_nobody() };
        // A node that has stopped closes nothing; the session is evicted in its time.
        let _ = self.node.shared.inbox.push(call);
    }
}

/// A command on its way; gives the state machine's reply.
///
/// Dropping it stops the waiting, not the command.
#[derive(Debug)]
#[must_use = "the reply is lost unless it is awaited"]
pub struct Proposal<'a, R> {
    waiter: Waiter<'a, ProposeError>,
    reply: PhantomData<fn() -> R>,
}

impl<R: Decode> Future for Proposal<'_, R> {
    type Output = Result<R, ProposeError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match ready!(self.waiter.poll(context))? {
            Answer::Proposed(result) => decode_reply(result),
            Answer::Lost => Err(ProposeError::Unknown),
            other => panic!("a proposal is answered as one, not by {other:?}"),
        })
    }
}

/// Commands on their way; gives their replies in order.
///
/// Dropping it stops the waiting, not the commands.
#[derive(Debug)]
#[must_use = "the replies are lost unless they are awaited"]
pub struct Proposals<'a, R> {
    waiter: Waiter<'a, Vec<ProposeError>>,
    count: usize,
    replies: PhantomData<fn() -> R>,
}

impl<R: Decode> Future for Proposals<'_, R> {
    type Output = Vec<Result<R, ProposeError>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match ready!(self.waiter.poll(context)) {
            Ok(Answer::ProposedMany(results)) => results.into_iter().map(decode_reply).collect(),
            Ok(Answer::Lost) => (0..self.count).map(|_| Err(ProposeError::Unknown)).collect(),
            Ok(other) => panic!("proposals are answered as many, not by {other:?}"),
            Err(refused) => refused.into_iter().map(Err).collect(),
        })
    }
}

/// A query on its way; gives the state machine's answer.
#[derive(Debug)]
#[must_use = "the answer is lost unless it is awaited"]
pub struct Read<'a, R> {
    waiter: Waiter<'a, ReadError>,
    answer: PhantomData<fn() -> R>,
}

impl<R: Decode> Future for Read<'_, R> {
    type Output = Result<R, ReadError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match ready!(self.waiter.poll(context))? {
            Answer::Read(result) => R::decode(result?).map_err(ReadError::Answer),
            Answer::Lost => Err(ReadError::Stopped),
            other => panic!("a read is answered as one, not by {other:?}"),
        })
    }
}

fn decode_reply<R: Decode>(result: Result<Bytes, synod_replica::ProposeError>) -> Result<R, ProposeError> {
    R::decode(result?).map_err(ProposeError::Reply)
}

/// Waits at a slot, or has the outcome already. `None` once the outcome was given.
#[derive(Debug)]
struct Waiter<'a, E> {
    state: Option<Result<Arc<Slot>, E>>,
    slots: &'a Slots,
}

impl<E> Waiter<'_, E> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Answer, E>> {
        let answer = match &self.state {
            Some(Ok(slot)) => Some(ready!(slot.poll(context))),
            Some(Err(_)) => None,
            None => panic!("polled again after it was ready"),
        };
        Poll::Ready(match (self.state.take(), answer) {
            (Some(Ok(slot)), Some(answer)) => {
                self.slots.give_back(slot);
                Ok(answer)
            }
            (Some(Err(error)), _) => Err(error),
            _ => unreachable!("just matched"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_and_calls_may_cross_threads() {
        fn assert<T: Send + Sync + Unpin>() {}
        assert::<Node>();
        assert::<Session>();
        assert::<Proposal<'static, Bytes>>();
        assert::<Proposals<'static, Bytes>>();
        assert::<Read<'static, Bytes>>();
    }
}
