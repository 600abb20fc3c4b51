//! The way of a call from a handle to the driver, and of its answer back.
//!
//! A call is pushed into the [`Inbox`] under one lock, without waiting. Its answer comes back through a
//! [`Slot`], which the handle uses again for its next call. Whoever holds a call's [`Promise`] owes the
//! answer: a promise dropped unkept answers [`Answer::Lost`], so no caller ever waits for ever.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use synod_core::{ClientId, NodeId, Sequence};
use synod_replica::{
    Consistency, Order, ProposeError as Proposed, QueryError as Queried, SessionKey,
    TransferError as Transferred,
};

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One call on its way to the driver.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) ask: Ask,
    /// Counted from when the driver takes the call up.
    pub(crate) timeout: Duration,
    pub(crate) promise: Promise,
}

impl Call {
    /// Answers a call that was never taken up: commands are handed back.
    pub(crate) fn refuse(self) {
        let stopping = |payload| Err(Proposed::Stopping { payload });
        self.promise.keep(match self.ask {
            Ask::Propose { payload, .. } => Answer::Proposed(stopping(payload)),
            Ask::ProposeMany { payloads, .. } => {
                Answer::ProposedMany(payloads.into_iter().map(stopping).collect())
            }
            Ask::Read { .. } => Answer::Read(Err(Queried::Stopping)),
            Ask::OpenSession { .. }
            | Ask::AttachSession { .. }
            | Ask::CloseSession { .. }
            | Ask::Transfer { .. } => Answer::Lost,
        });
    }
}

/// What is called for.
#[derive(Debug)]
pub(crate) enum Ask {
    Propose { session: SessionKey, payload: Bytes },
    ProposeMany { session: SessionKey, payloads: Vec<Bytes> },
    Read { query: Bytes, consistency: Consistency },
    OpenSession { session: SessionKey, order: Order },
    AttachSession { session: SessionKey, client: ClientId, order: Order, next: Sequence },
    CloseSession { session: SessionKey },
    Transfer { to: Option<NodeId> },
}

impl Ask {
    /// What it counts against the bounds of the inbox: commands and bytes.
    fn weight(&self) -> (usize, usize) {
        match self {
            Ask::Propose { payload, .. } => (1, payload.len()),
            Ask::ProposeMany { payloads, .. } => (payloads.len(), payloads.iter().map(Bytes::len).sum()),
            Ask::Read { query, .. } => (1, query.len()),
            Ask::OpenSession { .. } | Ask::Transfer { .. } => (1, 0),
            // Not refused for want of room: at most one of each follows an opening.
            Ask::AttachSession { .. } | Ask::CloseSession { .. } => (0, 0),
        }
    }
}

/// What a call is answered.
#[derive(Debug)]
pub(crate) enum Answer {
    Proposed(Result<Bytes, Proposed>),
    ProposedMany(Vec<Result<Bytes, Proposed>>),
    Read(Result<Bytes, Queried>),
    Opened(Result<ClientId, Proposed>),
    Transferred(Result<NodeId, Transferred>),
    /// The driver ended without an answer.
    Lost,
}

/// Why a call is not taken. It is handed back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotTaken {
    Full,
    Stopped,
}

/// How long the driver is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wanted {
    /// Until further notice.
    On,
    /// Until open calls are answered: no handle is left, or shutdown was asked for.
    Drain(Why),
    /// No longer, not even for one more write.
    Abort,
}

/// Why the driver is to drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Why {
    Shutdown,
    NoHandle,
}

/// Calls that the driver has not taken up yet, bounded.
#[derive(Debug)]
pub(crate) struct Inbox {
    queue: Mutex<Queue>,
    /// Set under the lock with every call and wish, and cleared when they are taken: an idle inbox is passed
    /// by without the lock.
    news: AtomicBool,
    commands_max: usize,
    bytes_max: usize,
}

#[derive(Debug)]
struct Queue {
    calls: Vec<Call>,
    commands: usize,
    bytes: usize,
    open: bool,
    wanted: Wanted,
    /// Set while the driver is parked.
    driver: Option<Waker>,
}

impl Inbox {
    pub(crate) fn new(commands_max: usize, bytes_max: usize) -> Inbox {
        let queue =
            Queue { calls: Vec::new(), commands: 0, bytes: 0, open: true, wanted: Wanted::On, driver: None };
        Inbox { queue: Mutex::new(queue), news: AtomicBool::new(false), commands_max, bytes_max }
    }

    pub(crate) fn push(&self, call: Call) -> Result<(), (NotTaken, Call)> {
        let (commands, bytes) = call.ask.weight();
        let mut queue = lock(&self.queue);
        if !queue.open {
            return Err((NotTaken::Stopped, call));
        }
        // A single call larger than all bounds is taken when nothing else waits: the replica judges it.
        let full = queue.commands + commands > self.commands_max || queue.bytes + bytes > self.bytes_max;
        if full && queue.commands > 0 && commands > 0 {
            return Err((NotTaken::Full, call));
        }
        queue.commands += commands;
        queue.bytes += bytes;
        queue.calls.push(call);
        self.tell_driver(queue);
        Ok(())
    }

    /// Takes no call any more, and tells the driver why. A stronger wish is never taken back.
    pub(crate) fn want(&self, wanted: Wanted) {
        let mut queue = lock(&self.queue);
        if wanted <= queue.wanted {
            return;
        }
        queue.wanted = wanted;
        queue.open = false;
        self.tell_driver(queue);
    }

    fn tell_driver(&self, mut queue: MutexGuard<'_, Queue>) {
        self.news.store(true, Ordering::Release);
        let driver = queue.driver.take();
        drop(queue);
        if let Some(driver) = driver {
            driver.wake();
        }
    }

    /// For the driver: ready if there is something to take, otherwise it is woken when there is.
    pub(crate) fn poll_ready(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut queue = lock(&self.queue);
        if self.news.load(Ordering::Relaxed) {
            return Poll::Ready(());
        }
        if !queue.driver.as_ref().is_some_and(|driver| driver.will_wake(context.waker())) {
            queue.driver = Some(context.waker().clone());
        }
        Poll::Pending
    }

    /// For the driver: takes every call there is, leaving the emptied `into` in their place, and any new wish.
    pub(crate) fn take(&self, into: &mut Vec<Call>) -> Option<Wanted> {
        debug_assert!(into.is_empty(), "calls taken before were handled");
        if !self.news.load(Ordering::Acquire) {
            return None;
        }
        let mut queue = lock(&self.queue);
        self.news.store(false, Ordering::Relaxed);
        queue.driver = None;
        std::mem::swap(&mut queue.calls, into);
        queue.commands = 0;
        queue.bytes = 0;
        (queue.wanted != Wanted::On).then_some(queue.wanted)
    }

    /// Takes no call any more and gives back those that wait.
    pub(crate) fn close(&self) -> Vec<Call> {
        let mut queue = lock(&self.queue);
        queue.open = false;
        queue.driver = None;
        std::mem::take(&mut queue.calls)
    }
}

/// The place where one caller waits for one answer at a time.
#[derive(Debug)]
pub(crate) struct Slot(Mutex<State>);

#[derive(Debug)]
enum State {
    Empty,
    Waiting(Waker),
    Done(Answer),
}

impl Slot {
    /// Takes the answer, or leaves word whom to wake.
    pub(crate) fn poll(&self, context: &mut Context<'_>) -> Poll<Answer> {
        let mut state = lock(&self.0);
        match &mut *state {
            State::Done(_) => match std::mem::replace(&mut *state, State::Empty) {
                State::Done(answer) => Poll::Ready(answer),
                State::Empty | State::Waiting(_) => unreachable!("the state was just matched"),
            },
            State::Waiting(waker) => {
                waker.clone_from(context.waker());
                Poll::Pending
            }
            State::Empty => {
                *state = State::Waiting(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// The duty to answer one call, once.
#[derive(Debug)]
pub(crate) struct Promise(Option<Arc<Slot>>);

impl Promise {
    /// For a call that nobody waits for.
    pub(crate) fn to_nobody() -> Promise {
        Promise(None)
    }

    pub(crate) fn keep(mut self, answer: Answer) {
        self.answer(answer);
    }

    fn answer(&mut self, answer: Answer) {
        let Some(slot) = self.0.take() else { return };
        let before = std::mem::replace(&mut *lock(&slot.0), State::Done(answer));
        if let State::Waiting(waker) = before {
            waker.wake();
        }
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.answer(Answer::Lost);
    }
}

/// Slots that a handle keeps for its next calls.
#[derive(Debug, Default)]
pub(crate) struct Slots(Mutex<Vec<Arc<Slot>>>);

impl Slots {
    /// More are not kept: a handle that ever had many calls open at once does not keep their memory.
    const KEPT_MAX: usize = 256;

    /// A slot to wait at, and the promise that it will be answered.
    pub(crate) fn promise(&self) -> (Arc<Slot>, Promise) {
        let kept = lock(&self.0).pop();
        let slot = kept.unwrap_or_else(|| Arc::new(Slot(Mutex::new(State::Empty))));
        let promise = Promise(Some(Arc::clone(&slot)));
        (slot, promise)
    }

    /// Takes a slot back whose answer was taken.
    pub(crate) fn give_back(&self, slot: Arc<Slot>) {
        let mut kept = lock(&self.0);
        if kept.len() < Slots::KEPT_MAX {
            kept.push(slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(slots: &Slots, payload: &'static [u8]) -> (Arc<Slot>, Call) {
        let (slot, promise) = slots.promise();
        let ask = Ask::Propose { session: SessionKey::OWN, payload: Bytes::from_static(payload) };
        (slot, Call { ask, timeout: Duration::ZERO, promise })
    }

    fn poll(slot: &Slot) -> Poll<Answer> {
        slot.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_promise_dropped_unkept_is_answered_lost() {
        let slots = Slots::default();
        let (slot, call) = call(&slots, b"x");
        assert!(poll(&slot).is_pending());
        drop(call);
        assert!(matches!(poll(&slot), Poll::Ready(Answer::Lost)));
    }

    #[test]
    fn a_slot_is_used_again_after_its_answer_was_taken() {
        let slots = Slots::default();
        let (slot, first) = call(&slots, b"x");
        first.promise.keep(Answer::Proposed(Ok(Bytes::new())));
        assert!(matches!(poll(&slot), Poll::Ready(Answer::Proposed(Ok(_)))));
        let address = Arc::as_ptr(&slot);
        slots.give_back(slot);
        let (again, _second) = call(&slots, b"y");
        assert_eq!(Arc::as_ptr(&again), address);
        assert!(poll(&again).is_pending());
    }

    #[test]
    fn the_inbox_is_bounded_in_commands_and_bytes_and_hands_the_call_back() {
        let slots = Slots::default();
        let inbox = Inbox::new(2, 5);
        inbox.push(call(&slots, b"1234567").1).expect("alone, even a large one is taken");
        assert_eq!(inbox.push(call(&slots, b"x").1).unwrap_err().0, NotTaken::Full);
        let mut taken = Vec::new();
        assert_eq!(inbox.take(&mut taken), None);
        assert_eq!(taken.len(), 1);
        inbox.push(call(&slots, b"1").1).unwrap();
        inbox.push(call(&slots, b"2").1).unwrap();
        assert_eq!(inbox.push(call(&slots, b"3").1).unwrap_err().0, NotTaken::Full);
    }

    #[test]
    fn a_draining_inbox_takes_nothing_and_an_abort_overrules_a_drain() {
        let slots = Slots::default();
        let inbox = Inbox::new(9, 99);
        inbox.push(call(&slots, b"x").1).unwrap();
        inbox.want(Wanted::Drain(Why::Shutdown));
        assert_eq!(inbox.push(call(&slots, b"y").1).unwrap_err().0, NotTaken::Stopped);
        inbox.want(Wanted::Abort);
        inbox.want(Wanted::Drain(Why::NoHandle));
        let mut taken = Vec::new();
        assert_eq!(inbox.take(&mut taken), Some(Wanted::Abort));
        assert_eq!(taken.len(), 1);
    }
}
