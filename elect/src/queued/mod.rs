//! The tokio shell of a candidate in a queue that other servers keep: who has stood in it for longest leads.

use std::time::Duration;

use async_trait::async_trait;
use synod_core::{ConfigError, Instant};
use synod_lease::FencingToken;

use crate::Leader;
use crate::clock::{now, sleep_until_due};
use crate::seat::Chair;

#[cfg(feature = "etcd")]
mod etcd;
#[cfg(feature = "zookeeper")]
mod zookeeper;

#[cfg(feature = "etcd")]
pub use etcd::EtcdElection;
#[cfg(feature = "zookeeper")]
pub use zookeeper::ZooKeeperElection;

/// What a candidate in a queue of other servers campaigns for.
#[derive(Clone, Debug)]
pub struct QueuedCandidate {
    /// What is led. Those who campaign for one name by one kind of server stand in one queue.
    pub name: String,
    /// What the candidate calls itself, for whoever looks.
    pub owner: String,
    /// How long the servers keep a place of which they hear nothing. Servers have bounds of their own for it; the
    /// candidate goes by what they have granted.
    pub length: Duration,
    /// How far clocks may be wrong.
    pub bound: synod_core::ClockBound,
}

impl QueuedCandidate {
    /// A candidate whose place is kept for 10 s, with the default bound on clocks.
    #[must_use]
    pub fn new(name: impl Into<String>, owner: impl Into<String>) -> QueuedCandidate {
        QueuedCandidate {
            name: name.into(),
            owner: owner.into(),
            length: Duration::from_secs(10),
            bound: synod_core::ClockBound::default(),
        }
    }

    /// Checks that everything is in its bounds.
    ///
    /// # Errors
    /// [`ConfigError`] for the first that is not.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let error = |setting, problem| Err(ConfigError { setting, problem });
        if self.name.is_empty() {
            return error("name", "must not be empty");
        }
        if self.name.len() > NAME_LEN_MAX {
            return error("name", "is too long");
        }
        if !(LENGTH_MIN..=LENGTH_MAX).contains(&self.length) {
            return error("length", "must be from a second to an hour");
        }
        if self.bound.held(self.length / 2).is_zero() {
            return error("length", "must be longer than what the bound on clocks takes off");
        }
        Ok(())
    }

    /// The name, as a part of a key or a path: every name has another one.
    fn escaped_name(&self) -> String {
        let mut escaped = String::new();
        for byte in self.name.bytes() {
            if byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_' {
                escaped.push(char::from(byte));
            } else {
                escaped += &format!("%{byte:02X}");
            }
        }
        escaped
    }
}

const NAME_LEN_MAX: usize = 200;
const LENGTH_MIN: Duration = Duration::from_secs(1);
const LENGTH_MAX: Duration = Duration::from_secs(3600);

/// A queue at servers. A call that takes too long is dropped half way: what it may have left behind is given up by the
/// next [`Queue::enter`] or [`Queue::leave`], or by the servers when the place is not renewed.
#[async_trait]
trait Queue: Send + 'static {
    /// Takes a place at the end.
    async fn enter(&mut self) -> Result<Place, QueueError>;

    /// Renews the place; answers until when it is kept at least. `None` if it is gone.
    async fn renew(&mut self) -> Result<Option<Instant>, QueueError>;

    /// Who stands first. It may have left already; nobody else has come before it.
    async fn first(&mut self) -> Result<Option<Leader>, QueueError>;

    /// Waits until the queue may have changed since the last look; for ever if that is not known. Cancel-safe.
    async fn changed(&mut self);

    /// Gives up the place, if there is one.
    async fn leave(&mut self) -> Result<(), QueueError>;

    /// How long after one renewal the next one is due.
    fn renew_every(&self) -> Duration;
}

/// Why the servers gave no answer.
type QueueError = Box<dyn std::error::Error + Send + Sync>;

/// A place in the queue.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// Higher than that of every place before.
    token: FencingToken,
    /// It is kept until then at least.
    until: Instant,
}

/// The task.
struct Driver<Q> {
    queue: Q,
    chair: Chair,
    place: Option<Place>,
    /// It stood first at the last look: it does until it leaves.
    first: bool,
    enter_at: Instant,
    renew_at: Instant,
    look_at: Option<Instant>,
    /// How long one call may take.
    patience: Duration,
    /// How long to wait after a failure.
    retry: Duration,
}

impl<Q: Queue> Driver<Q> {
    fn new(queue: Q, chair: Chair, length: Duration) -> Driver<Q> {
        Driver {
            queue,
            chair,
            place: None,
            first: false,
            enter_at: Instant::ZERO,
            renew_at: Instant::ZERO,
            look_at: Some(Instant::ZERO),
            patience: length / 4,
            retry: (length / 20).clamp(Duration::from_millis(20), Duration::from_millis(500)),
        }
    }

    async fn run(mut self) {
        loop {
            let wish = self.chair.wish();
            let campaign = wish.is_some_and(|wish| wish.campaign);
            if !campaign && self.place.is_some() {
                self.lose();
                if let Err(why) = within(self.patience, self.queue.leave()).await {
                    tracing::warn!(%why, "the place in the queue is not given up: it ends with its lease");
                }
            }
            let Some(wish) = wish else { return };
            self.chair.settled(wish.number);
            if campaign {
                self.stand().await;
            }
            self.look().await;
            if let Some(place) = self.place.filter(|place| self.first && place.until > now()) {
                self.chair.holds(Some(place.token), place.until);
            }
            let due = match (campaign, self.place) {
                (false, _) => self.look_at,
                (true, None) => Instant::earlier(Some(self.enter_at), self.look_at),
                (true, Some(_)) => Instant::earlier(Some(self.renew_at), self.look_at),
            };
            tokio::select! {
                () = self.queue.changed() => self.look_at = Some(now() + LOOK_EVERY_MIN),
                // An error says that nobody holds the other end: the next round sees it.
                _ = self.chair.wishes.changed() => {}
                () = sleep_until_due(due) => {}
            }
        }
    }

    /// Has a place in the queue, and keeps it.
    async fn stand(&mut self) {
        let asked = now();
        if self.place.is_some() {
            if asked < self.renew_at {
                return;
            }
            match within(self.patience, self.queue.renew()).await {
                Ok(Some(until)) => {
                    self.renew_at = asked + self.queue.renew_every();
                    if let Some(place) = &mut self.place {
                        place.until = place.until.max(until);
                    }
                    return;
                }
                Err(why) => {
                    tracing::debug!(%why, "the place in the queue is not renewed");
                    self.renew_at = now() + self.retry.min(self.queue.renew_every());
                    return;
                }
                Ok(None) => {
                    tracing::warn!("the place in the queue is gone");
                    self.lose();
                    self.enter_at = asked;
                }
            }
        }
        if asked < self.enter_at {
            return;
        }
        match within(self.patience, self.queue.enter()).await {
            Ok(place) => {
                self.place = Some(place);
                self.renew_at = asked + self.queue.renew_every();
                self.look_at = Some(asked);
            }
            Err(why) => {
                tracing::warn!(%why, "no place in the queue");
                self.enter_at = now() + self.retry;
            }
        }
    }

    /// Looks who stands first, if that may have changed.
    async fn look(&mut self) {
        if self.look_at.is_none_or(|at| at > now()) {
            return;
        }
        match within(self.patience, self.queue.first()).await {
            Ok(first) => {
                self.look_at = None;
                let own = self.place.map(|place| place.token);
                let stands_first = own.is_some() && first.as_ref().and_then(|leader| leader.token) == own;
                if self.first && !stands_first {
                    // Somebody has taken the place away.
                    self.lose();
                    self.enter_at = now();
                    self.look_at = Some(now() + LOOK_EVERY_MIN);
                } else {
                    self.first = stands_first;
                }
                self.chair.sees(first);
            }
            Err(why) => {
                tracing::debug!(%why, "nobody says who leads");
                self.look_at = Some(now() + self.retry);
            }
        }
    }

    fn lose(&mut self) {
        self.place = None;
        self.first = false;
        self.chair.lost();
    }
}

/// Looks are not made more often than this, however often the queue changes.
const LOOK_EVERY_MIN: Duration = Duration::from_millis(5);

async fn within<T>(
    patience: Duration,
    call: impl Future<Output = Result<T, QueueError>>,
) -> Result<T, QueueError> {
    tokio::time::timeout(patience, call).await.unwrap_or_else(|_| Err("the servers do not answer".into()))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::seat::seat;

    /// A queue in memory, of others and of whoever holds the driver.
    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<State>>, Arc<tokio::sync::Notify>);

    #[derive(Default)]
    struct State {
        places: Vec<u64>,
        next: u64,
        own: Option<u64>,
        silent: bool,
    }

    impl Memory {
        fn change(&self, change: impl FnOnce(&mut State)) {
            change(&mut self.0.lock().unwrap());
            self.1.notify_one();
        }
    }

    const LENGTH: Duration = Duration::from_millis(400);

    #[async_trait]
    impl Queue for Memory {
        async fn enter(&mut self) -> Result<Place, QueueError> {
            let mut state = self.0.lock().unwrap();
            state.next += 1;
            let token = state.next;
            state.own = Some(token);
            state.places.push(token);
            Ok(Place { token: FencingToken(token), until: now() + LENGTH })
        }

        async fn renew(&mut self) -> Result<Option<Instant>, QueueError> {
            let state = self.0.lock().unwrap();
            if state.silent {
                return Err("silent".into());
            }
            let there = state.own.is_some_and(|own| state.places.contains(&own));
            Ok(there.then(|| now() + LENGTH))
        }

        async fn first(&mut self) -> Result<Option<Leader>, QueueError> {
            let first = self.0.lock().unwrap().places.first().copied();
            Ok(first.map(|token| Leader { name: token.to_string(), token: Some(FencingToken(token)) }))
        }

        async fn changed(&mut self) {
            self.1.notified().await;
        }

        async fn leave(&mut self) -> Result<(), QueueError> {
            let mut state = self.0.lock().unwrap();
            let own = state.own.take();
            state.places.retain(|place| Some(*place) != own);
            Ok(())
        }

        fn renew_every(&self) -> Duration {
            LENGTH / 8
        }
    }

    fn candidate(queue: &Memory) -> crate::seat::Seat {
        let (seat, chair) = seat();
        tokio::spawn(Driver::new(queue.clone(), chair, LENGTH).run());
        seat
    }

    #[tokio::test]
    async fn whoever_waits_leads_when_those_before_it_have_left_and_not_earlier() {
        let queue = Memory::default();
        queue.change(|state| (state.places, state.next) = (vec![1, 2], 2));
        let seat = candidate(&queue);
        assert!(tokio::time::timeout(LENGTH / 2, seat.campaign()).await.is_err());
        let leads = async { seat.campaign().await.unwrap() };
        let leave = async {
            for _ in 0..2 {
                tokio::time::sleep(LENGTH / 4).await;
                queue.change(|state| {
                    state.places.remove(0);
                });
            }
        };
        let (leadership, ()) = tokio::join!(leads, leave);
        assert!(leadership.token() > Some(FencingToken(2)));
        tokio::time::sleep(LENGTH * 2).await;
        assert!(leadership.remaining().is_some(), "it is renewed");
        seat.resign().await.unwrap();
        assert_eq!(leadership.remaining(), None);
        assert!(queue.0.lock().unwrap().places.is_empty());
    }

    #[tokio::test]
    async fn a_leader_that_cannot_renew_stops_in_time_and_goes_on_under_its_token_if_its_place_was_kept() {
        let queue = Memory::default();
        let seat = candidate(&queue);
        let first = seat.campaign().await.unwrap();
        queue.change(|state| state.silent = true);
        let began = now();
        first.lost().await;
        assert!(now().saturating_since(began) <= LENGTH + LENGTH / 4);
        queue.change(|state| state.silent = false);
        let second = seat.campaign().await.unwrap();
        assert_eq!(second.token(), first.token());
        assert_eq!(first.remaining(), None, "what was lost stays lost");
    }

    #[tokio::test]
    async fn a_place_that_is_taken_away_is_lost_and_another_one_is_at_the_end() {
        let queue = Memory::default();
        let seat = candidate(&queue);
        let first = seat.campaign().await.unwrap();
        queue.change(|state| (state.places, state.next) = (vec![7], 7));
        first.lost().await;
        let began = now();
        let again = async { seat.campaign().await.unwrap() };
        let gone = async {
            tokio::time::sleep(LENGTH / 2).await;
            queue.change(|state| state.places.retain(|place| *place != 7));
        };
        let (second, ()) = tokio::join!(again, gone);
        assert!(second.token() > Some(FencingToken(7)) && now().saturating_since(began) >= LENGTH / 2);
    }

    #[test]
    fn names_that_differ_are_different_keys_and_bad_settings_are_refused() {
        let escaped = |name: &str| QueuedCandidate::new(name, "").escaped_name();
        assert_eq!(escaped("cron-1_a"), "cron-1_a");
        assert_eq!(escaped("a/b.%"), "a%2Fb%2E%25");
        let length = |length| QueuedCandidate { length, ..QueuedCandidate::new("name", "") }.validate();
        assert!(length(Duration::from_secs(2)).is_ok());
        assert!(length(Duration::from_millis(999)).is_err() && length(Duration::from_secs(4000)).is_err());
        assert!(QueuedCandidate::new("", "").validate().is_err());
        assert!(QueuedCandidate::new("n".repeat(201), "").validate().is_err());
    }
}
