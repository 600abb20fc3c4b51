//! One client: it calls, retries until it knows the outcome or its deadline, and keeps its history.
//!
//! # Exactly once across a crash
//! A client whose node died does not know whether its open put took effect. To write the same value again
//! would be wrong: the first attempt may have been applied and overwritten since. So every client holds a
//! replicated session of its own, with one command open at a time, and knows that command's number. It takes
//! the session over at another node and proposes the same command under the same number, which is applied
//! once. When an outcome stays unknown the session is given up, and the next command opens another.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use synod_checker::{ClientId, KeyId, Nanos, Outcome, ValueId};
use synod_core::Sequence;
use synod_runtime::{Consistency, Order, ProposeError, ReadError, Session};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout_at};

use super::clock::Clock;
use super::cluster::{Seat, Seating};
use super::record::Record;
use crate::options::ClientsAt;
use crate::workload::{Format, NotAValue, Step, Workload};

/// How long a client goes on until an outcome counts as unknown.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// How long a client waits before it asks a live node again.
const PAUSE: Duration = Duration::from_millis(1);

/// How long operations that are due may start after the end of an open loop.
const GRACE: Duration = Duration::from_secs(1);

/// A client with its session and its history.
pub struct Client {
    number: u32,
    at: ClientsAt,
    clock: Clock,
    format: Format,
    seats: watch::Receiver<Arc<Seating>>,
    held: Option<Held>,
    /// Sessions left behind at nodes that still ran. Dropping one would close it for good.
    left: Vec<Session>,
    record: Record,
    tally: Tally,
}

/// A session at a node.
struct Held {
    session: Session,
    life: u64,
    /// The number of the next command, or of the open one.
    next: Sequence,
}

/// What a client counts beside its history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Operations started.
    pub issued: u64,
    /// Answers that make no sense: a value that nobody wrote, a reply that is none.
    pub contradictory: u64,
    /// In an open loop, when each operation was meant to start.
    pub intended: Vec<Nanos>,
}

/// When clients call.
#[derive(Clone, Debug)]
pub enum Pace {
    /// As soon as the last call is answered, until this says stop.
    Closed(Arc<AtomicBool>),
    /// On a schedule.
    Open(Arc<Schedule>),
}

/// Starts of operations, evenly spaced; whichever client is free takes the next.
#[derive(Debug)]
pub struct Schedule {
    start: Nanos,
    rate: f64,
    taken: AtomicU64,
    due: Semaphore,
}

impl Schedule {
    /// `rate` operations a second from `start` on.
    #[must_use]
    pub fn new(start: Nanos, rate: f64) -> Schedule {
        Schedule { start, rate, taken: AtomicU64::new(0), due: Semaphore::new(0) }
    }

    /// When operation `number` is meant to start.
    #[must_use]
    pub fn intended(&self, number: u64) -> Nanos {
        Nanos(self.start.0 + (number as f64 / self.rate * 1e9) as u64)
    }

    /// Releases operations as they become due, until `stop`; those that were due by then are waited for a
    /// second. Gives how many were never taken. Blocks: it has a thread of its own, since the timers of a
    /// runtime are too coarse.
    #[must_use]
    pub fn release(&self, clock: Clock, stop: &AtomicBool) -> u64 {
        let mut released: u64 = 0;
        while !stop.load(Ordering::Relaxed) {
            let now = clock.now();
            let due = now.0.saturating_sub(self.start.0) as f64 / 1e9 * self.rate;
            let due = if now < self.start { 0 } else { due as u64 + 1 };
            if due > released {
                self.due.add_permits(
                    usize::try_from(due - released).unwrap_or(0).min(Semaphore::MAX_PERMITS >> 8),
                );
                released = due;
            }
            let wait = self.intended(released).0.saturating_sub(clock.now().0);
            std::thread::sleep(Duration::from_nanos(wait.clamp(20_000, 10_000_000)));
        }
        let stopped = clock.now();
        while self.taken.load(Ordering::Relaxed) < released && clock.now() < after(stopped, GRACE) {
            std::thread::sleep(PAUSE);
        }
        self.due.close();
        released.saturating_sub(self.taken.load(Ordering::Relaxed))
    }

    /// Waits for an operation to become due; when it was meant to start. None at the end.
    async fn take(&self) -> Option<Nanos> {
        self.due.acquire().await.ok()?.forget();
        Some(self.intended(self.taken.fetch_add(1, Ordering::Relaxed)))
    }
}

impl Client {
    /// Client `number`, without a session yet.
    #[must_use]
    pub fn new(
        number: u32,
        at: ClientsAt,
        clock: Clock,
        format: Format,
        seats: watch::Receiver<Arc<Seating>>,
    ) -> Client {
        Client {
            number,
            at,
            clock,
            format,
            seats,
            held: None,
            left: Vec::new(),
            record: Record::new(ClientId(number)),
            tally: Tally::default(),
        }
    }

    /// Opens its session. False if that took longer than [`DEADLINE`].
    pub async fn enter(&mut self) -> bool {
        self.seat(after(self.clock.now(), DEADLINE)).await
    }

    /// Calls at this pace.
    pub async fn load(mut self, pace: Pace, mut workload: Workload) -> Client {
        match pace {
            Pace::Closed(stop) => {
                let mut now = self.clock.now();
                while !stop.load(Ordering::Relaxed) {
                    now = self.operate(workload.step(), now).await;
                }
            }
            Pace::Open(schedule) => {
                while let Some(intended) = schedule.take().await {
                    self.tally.intended.push(intended);
                    self.operate(workload.step(), self.clock.now()).await;
                }
            }
        }
        self
    }

    /// Reads each of these keys once.
    pub async fn read_all(mut self, keys: Vec<u32>) -> Client {
        for key in keys {
            let now = self.clock.now();
            self.operate(Step::Get(key), now).await;
        }
        self
    }

    /// What it did, and what it counted. Call when the nodes have ended: it drops the client's sessions.
    #[must_use]
    pub fn finish(self) -> (Record, Tally) {
        (self.record, self.tally)
    }

    /// What it did so far.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// One operation, from its call to what is known in the end; when that was.
    async fn operate(&mut self, step: Step, call: Nanos) -> Nanos {
        self.tally.issued += 1;
        // Clients follow the leader, but only between operations: an open one is finished where it is.
        if self.seats.has_changed().unwrap_or(false) {
            self.follow();
        }
        let (outcome, read) = match step {
            Step::Put(key, value) => {
                self.record.put(KeyId(key), value, call);
                (self.put(key, value, call).await, None)
            }
            Step::Get(key) => {
                self.record.get(KeyId(key), call);
                self.get(key, call).await
            }
        };
        let now = self.clock.now();
        self.record.end(outcome, read, now);
        now
    }

    async fn put(&mut self, key: u32, value: ValueId, call: Nanos) -> Outcome {
        let command = self.format.put(key, value);
        let deadline = after(call, DEADLINE);
        let mut result = match &self.held {
            Some(held) => held.session.propose(command).await,
            None => Err(ProposeError::Stopped { command }),
        };
        // True if an attempt may take effect although it was not answered.
        let mut exposed = false;
        let outcome = loop {
            let error = match result {
                Ok(reply) if is_put_reply(&reply) => {
                    if let Some(held) = &mut self.held {
                        held.next = held.next.next();
                    }
                    return Outcome::Ok;
                }
                Ok(_) => {
                    self.tally.contradictory += 1;
                    break Outcome::Unknown;
                }
                Err(error) => error,
            };
            let may_go_on = match &error {
                ProposeError::Unknown => {
                    exposed = true;
                    // Of a running node, this is the deadline.
                    !self.is_held_at_a_running_node()
                }
                ProposeError::SessionExpired => {
                    exposed = true;
                    false
                }
                ProposeError::Stopped { .. } | ProposeError::Full { .. } => true,
                // Under its number, the session may have nothing or may have this command. See `forget`.
                _ => false,
            };
            if !may_go_on || self.clock.now() >= deadline {
                break if exposed { Outcome::Unknown } else { Outcome::Failed };
            }
            if self.is_held_at_a_running_node() {
                sleep(PAUSE).await;
            } else if !self.seat(deadline).await {
                break if exposed { Outcome::Unknown } else { Outcome::Failed };
            }
            let Some(held) = &self.held else { break Outcome::Unknown };
            let again = held.session.propose(self.format.put(key, value));
            let until = self.clock.instant(deadline).into();
            result = timeout_at(until, again).await.unwrap_or(Err(ProposeError::Unknown));
        };
        self.forget();
        outcome
    }

    async fn get(&mut self, key: u32, call: Nanos) -> (Outcome, Option<ValueId>) {
        let deadline = after(call, DEADLINE);
        let query = self.format.get(key);
        let mut result = match &self.held {
            Some(held) => held.session.node().read(query, Consistency::Linearizable).await,
            None => Err(ReadError::Stopped),
        };
        loop {
            match result {
                Ok(answer) => {
                    return match self.format.returned(&answer) {
                        Ok(value) => (Outcome::Ok, value),
                        Err(NotAValue) => self.contradiction(),
                    };
                }
                Err(ReadError::Full | ReadError::TimedOut | ReadError::Stopped) => {}
                Err(_) => return self.contradiction(),
            }
            // A read has no effect: one that was never answered has surely failed.
            if self.clock.now() >= deadline {
                return (Outcome::Failed, None);
            }
            if self.is_held_at_a_running_node() {
                sleep(PAUSE).await;
            } else if !self.seat(deadline).await {
                return (Outcome::Failed, None);
            }
            let Some(held) = &self.held else { return (Outcome::Failed, None) };
            let again = held.session.node().read(self.format.get(key), Consistency::Linearizable);
            let until = self.clock.instant(deadline).into();
            result = timeout_at(until, again).await.unwrap_or(Err(ReadError::TimedOut));
        }
    }

    /// A get was answered with something that makes no sense.
    fn contradiction(&mut self) -> (Outcome, Option<ValueId>) {
        self.tally.contradictory += 1;
        (Outcome::Unknown, None)
    }

    /// Gives the session up: the number of its next command is not known for sure, and a command that may
    /// still be decided under it must not come after the next one.
    fn forget(&mut self) {
        self.held = None;
    }

    fn is_held_at_a_running_node(&self) -> bool {
        self.held.as_ref().is_some_and(|held| held.session.node().status().stopped().is_none())
    }

    /// Moves to where this client belongs by now, if that is a running node and another one.
    fn follow(&mut self) {
        let seating = Arc::clone(&self.seats.borrow_and_update());
        if let Some(seat) = self.belongs(&seating) {
            self.take_over(seat);
        }
    }

    /// Waits until there is a node for this client, and holds a session there. False if the deadline passed.
    async fn seat(&mut self, deadline: Nanos) -> bool {
        let until = self.clock.instant(deadline).into();
        loop {
            let seating = Arc::clone(&self.seats.borrow_and_update());
            if let Some(seat) = self.belongs(&seating).cloned() {
                self.take_over(&seat);
                if self.held.as_ref().is_some_and(|held| held.life == seat.life)
                    && self.is_held_at_a_running_node()
                {
                    return true;
                }
                let opened = timeout_at(until, seat.node.session(Order::Unordered)).await;
                match opened {
                    Ok(Ok(session)) => {
                        self.held = Some(Held { session, life: seat.life, next: Sequence(1) });
                        return true;
                    }
                    Ok(Err(_)) => sleep(PAUSE).await,
                    Err(_) => return false,
                }
            } else if timeout_at(until, self.seats.changed()).await.is_err() {
                return false;
            }
            if self.clock.now() >= deadline {
                return false;
            }
        }
    }

    /// Continues the session held at this seat, if it is held at another.
    fn take_over(&mut self, seat: &Seat) {
        let Some(held) = self.held.take() else { return };
        if held.life == seat.life {
            self.held = Some(held);
            return;
        }
        let session = seat.node.attach_session(held.session.client(), Order::Unordered, held.next);
        self.held = Some(Held { session, life: seat.life, next: held.next });
        self.left.push(held.session);
    }

    fn belongs<'a>(&self, seating: &'a Seating) -> Option<&'a Seat> {
        let leader = seating.leader().map(|(_, seat)| seat);
        match self.at {
            ClientsAt::Leader => leader,
            ClientsAt::Spread => seating.place(self.number as usize).or(leader),
        }
    }
}

/// True for what the store answers to a put: whether the key had a value.
fn is_put_reply(reply: &Bytes) -> bool {
    matches!(reply[..], [0 | 1])
}

fn after(at: Nanos, time: Duration) -> Nanos {
    Nanos(at.0.saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)))
}
