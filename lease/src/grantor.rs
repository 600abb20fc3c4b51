//! The side that remembers.

use std::time::Duration;

use synod_core::Instant;

use crate::FencingToken;

/// The side of one lease that remembers who holds it.
///
/// It counts from *after* the request arrived. A grantor that restarts without its memory stays silent for
/// one full lease, so that whatever the life before it granted has ended; one whose grants are durable or
/// replicated goes on at once ([`Grantor::restored`]).
#[derive(Clone, Debug)]
pub struct Grantor<H> {
    granted: Duration,
    silent_until: Instant,
    lease: Option<Lease<H>>,
    last: FencingToken,
}

#[derive(Clone, Debug)]
struct Lease<H> {
    holder: H,
    until: Instant,
    token: FencingToken,
}

/// A lease as its grantor gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// How long the grantor remembers it, by its own clock, from when it was asked.
    pub granted: Duration,
    /// Rises with every holder; a renewal keeps it.
    pub token: FencingToken,
}

/// Why a lease was not granted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal<H: std::fmt::Debug + std::fmt::Display> {
    /// Somebody else holds it.
    #[error("{holder} holds the lease")]
    Held {
        /// Who.
        holder: H,
        /// How long the grantor will remember that.
        remaining: Duration,
    },
    /// The grantor does not know what it granted before it restarted.
    #[error("the grantor waits until every earlier lease has ended")]
    Silent {
        /// How much longer.
        remaining: Duration,
    },
}

impl<H: Clone + PartialEq + std::fmt::Debug + std::fmt::Display> Grantor<H> {
    /// Grants leases of this length. It may have granted others before it was started, which it does not
    /// know: it is silent for one length. Tokens go on after `last`, which must be at least the last one
    /// ever granted.
    #[must_use]
    pub fn new(now: Instant, granted: Duration, last: FencingToken) -> Grantor<H> {
        Grantor { granted, silent_until: now + granted, lease: None, last }
    }

    /// A grantor that knows everything it ever granted: nothing, or a lease whose full length begins anew.
    #[must_use]
    pub fn restored(now: Instant, granted: Duration, last: FencingToken, holder: Option<H>) -> Grantor<H> {
        let lease = holder.map(|holder| Lease { holder, until: now + granted, token: last });
        Grantor { granted, silent_until: now, lease, last }
    }

    /// Grants the lease, or more of it to the one who holds it. Call it when the request was received.
    ///
    /// # Errors
    /// [`Refusal`] if somebody else holds it, or may.
    pub fn grant(&mut self, now: Instant, holder: H) -> Result<Grant, Refusal<H>> {
        if now < self.silent_until {
            return Err(Refusal::Silent { remaining: self.silent_until - now });
        }
        let until = now + self.granted;
        match &mut self.lease {
            Some(lease) if lease.until > now && lease.holder != holder => {
                return Err(Refusal::Held { holder: lease.holder.clone(), remaining: lease.until - now });
            }
            Some(lease) if lease.until > now => lease.until = until,
            _ => {
                self.last = FencingToken(self.last.0 + 1);
                self.lease = Some(Lease { holder, until, token: self.last });
            }
        }
        Ok(Grant { granted: self.granted, token: self.last })
    }

    /// The holder of `token` gives the lease up. True if it was this one; a late release of an earlier lease
    /// changes nothing.
    pub fn release(&mut self, token: FencingToken) -> bool {
        let releases = self.lease.as_ref().is_some_and(|lease| lease.token == token);
        if releases {
            self.lease = None;
        }
        releases
    }

    /// Who holds the lease, as the grantor remembers it, and under which token.
    #[must_use]
    pub fn holder(&self, now: Instant) -> Option<(&H, FencingToken)> {
        self.lease.as_ref().filter(|lease| lease.until > now).map(|lease| (&lease.holder, lease.token))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(milliseconds: u64) -> Instant {
        Instant(milliseconds * 1_000_000)
    }

    #[test]
    fn a_restarted_grantor_is_silent_for_one_full_lease() {
        let mut grantor = Grantor::new(at(0), SECOND, FencingToken(4));
        assert_eq!(
            grantor.grant(at(400), "a").unwrap_err(),
            Refusal::Silent { remaining: Duration::from_millis(600) }
        );
        assert_eq!(grantor.grant(at(1_000), "a").unwrap().token, FencingToken(5));
    }

    #[test]
    fn a_renewal_keeps_the_token_and_the_next_holder_gets_a_higher_one() {
        let mut grantor = Grantor::restored(at(0), SECOND, FencingToken(0), None);
        let first = grantor.grant(at(0), "a").unwrap();
        assert_eq!(grantor.grant(at(900), "a").unwrap().token, first.token);
        assert!(matches!(grantor.grant(at(1_800), "b").unwrap_err(), Refusal::Held { holder: "a", .. }));
        let second = grantor.grant(at(1_900), "b").unwrap();
        assert!(second.token > first.token);
        assert!(!grantor.release(first.token), "a late release of an earlier lease");
        assert_eq!(grantor.holder(at(2_000)), Some((&"b", second.token)));
    }

    #[test]
    fn the_holder_itself_gets_a_higher_token_once_its_lease_was_forgotten() {
        let mut grantor = Grantor::restored(at(0), SECOND, FencingToken(0), None);
        let first = grantor.grant(at(0), "a").unwrap().token;
        assert!(grantor.grant(at(1_000), "a").unwrap().token > first);
    }

    #[test]
    fn a_release_lets_the_next_one_in_at_once() {
        let mut grantor = Grantor::restored(at(0), SECOND, FencingToken(0), Some("a"));
        assert!(grantor.grant(at(10), "b").is_err());
        assert!(grantor.release(FencingToken(0)));
        assert!(grantor.grant(at(11), "b").is_ok());
    }
}
