//! The side that acts.

use std::time::Duration;

use synod_core::{ClockBound, Instant};

use crate::FencingToken;

/// The side of a lease that acts while it holds it.
///
/// It counts from *before* it asked, and stops before the grantor forgets, whatever the two clocks do within
/// the bound. Ask [`Holder::remaining`] before an act and finish within it; a look that says yes says nothing
/// about the moment after a pause. What cannot be bounded in time is protected by the token, at the resource
/// ([`crate::FencedResource`]).
#[derive(Clone, Debug)]
pub struct Holder {
    bound: ClockBound,
    held: Option<(Instant, Option<FencingToken>)>,
    /// The request under way: when it was begun. An answer to any other counts for nothing.
    asked: Option<(Request, Instant)>,
    requests: u64,
}

/// Names one request of one life of a holder; the grantor's answer names it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Request(pub u64);

impl Holder {
    /// Holds nothing.
    #[must_use]
    pub fn new(bound: ClockBound) -> Holder {
        Holder { bound, held: None, asked: None, requests: 0 }
    }

    /// Begins a request for the lease, or for more of it. Call it before the request leaves. An earlier
    /// request counts for nothing from now on.
    pub fn ask(&mut self, now: Instant) -> Request {
        self.requests += 1;
        let request = Request(self.requests);
        self.asked = Some((request, now));
        request
    }

    /// The grantor said yes and remembers the lease for `granted`. True if it is held now: an answer that
    /// comes too late, or to another request, gives nothing. What is held already is never cut short.
    pub fn granted(
        &mut self,
        now: Instant,
        request: Request,
        granted: Duration,
        token: Option<FencingToken>,
    ) -> bool {
        let Some((asked, began)) = self.asked else { return false };
        if asked != request {
            return false;
        }
        self.asked = None;
        let until = began + self.bound.held(granted);
        if until <= now {
            return false;
        }
        let until = self.held.map_or(until, |(earlier, _)| earlier.max(until));
        self.held = Some((until, token));
        true
    }

    /// Gives the lease up. Call it before the release leaves: nobody may act on what is being released.
    pub fn release(&mut self) {
        self.held = None;
        self.asked = None;
    }

    /// How long the holder may still act; none if it may not.
    #[must_use]
    pub fn remaining(&self, now: Instant) -> Option<Duration> {
        self.held.filter(|(until, _)| *until > now).map(|(until, _)| until - now)
    }

    /// When it must have stopped, if it holds the lease now.
    #[must_use]
    pub fn until(&self, now: Instant) -> Option<Instant> {
        self.held.filter(|(until, _)| *until > now).map(|(until, _)| until)
    }

    /// The token of the lease, if it is held now and its grantor gives tokens.
    #[must_use]
    pub fn token(&self, now: Instant) -> Option<FencingToken> {
        self.held.filter(|(until, _)| *until > now).and_then(|(_, token)| token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn exact() -> ClockBound {
        ClockBound::new(0, Duration::ZERO).unwrap()
    }

    fn at(milliseconds: u64) -> Instant {
        Instant(milliseconds * 1_000_000)
    }

    #[test]
    fn the_lease_counts_from_before_the_request() {
        let mut holder = Holder::new(exact());
        let request = holder.ask(at(0));
        assert!(holder.granted(at(900), request, SECOND, None));
        assert_eq!(holder.remaining(at(900)), Some(Duration::from_millis(100)));
        assert_eq!(holder.remaining(at(1_000)), None);
    }

    #[test]
    fn an_answer_that_comes_too_late_gives_nothing() {
        let mut holder = Holder::new(exact());
        let request = holder.ask(at(0));
        assert!(!holder.granted(at(1_000), request, SECOND, None));
    }

    #[test]
    fn an_answer_to_an_earlier_request_gives_nothing() {
        let mut holder = Holder::new(exact());
        let first = holder.ask(at(0));
        let second = holder.ask(at(500));
        assert!(!holder.granted(at(600), first, SECOND, None));
        assert!(holder.granted(at(700), second, SECOND, None));
        assert_eq!(holder.until(at(700)), Some(at(1_500)));
    }

    #[test]
    fn a_renewal_lengthens_and_a_shorter_one_cuts_nothing_off() {
        let mut holder = Holder::new(exact());
        let request = holder.ask(at(0));
        holder.granted(at(1), request, SECOND, Some(FencingToken(7)));
        let request = holder.ask(at(100));
        assert!(holder.granted(at(101), request, SECOND / 10, Some(FencingToken(7))));
        assert_eq!(holder.until(at(200)), Some(at(1_000)));
        assert_eq!(holder.token(at(200)), Some(FencingToken(7)));
        assert_eq!(holder.token(at(1_000)), None);
    }

    #[test]
    fn what_was_released_is_not_held_even_if_the_answer_comes_later() {
        let mut holder = Holder::new(exact());
        let request = holder.ask(at(0));
        holder.release();
        assert!(!holder.granted(at(1), request, SECOND, None));
        assert_eq!(holder.remaining(at(1)), None);
    }
}
