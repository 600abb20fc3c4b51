//! The trait of elections, and what a candidate gets from one.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use synod_core::Instant;
use synod_lease::FencingToken;
use tokio::sync::watch;

use crate::ElectionError;
use crate::clock::{now, sleep_until};
use crate::seat::{Standing, Tenure};

/// One candidate for one name: at most one candidate of all leads at any moment, for as long as its lease lasts.
///
/// Whatever gives the lease out, the candidate renews it by itself until it resigns.
#[async_trait]
pub trait Election: Send + Sync {
    /// Campaigns until this candidate leads; at once if it does already.
    ///
    /// # Errors
    /// [`ElectionError`] if this candidate cannot go on. That nobody can be reached is no error: it waits.
    ///
    /// # Cancel safety
    /// Cancel-safe: a campaign that nobody waits for any more is withdrawn, unless this candidate leads.
    async fn campaign(&self) -> Result<Leadership, ElectionError>;

    /// Gives up what this candidate holds, and campaigns no more. Its own belief goes first, then others are told: so
    /// they need not wait for the end of the lease. Returns when they were told, or could not be told in time.
    ///
    /// # Errors
    /// [`ElectionError`] if this candidate had ended already.
    ///
    /// # Cancel safety
    /// Cancel-safe: it resigns all the same.
    async fn resign(&self) -> Result<(), ElectionError>;

    /// Who leads, as far as it is seen from here, now and whenever that changes; `None` for nobody. A hint: only the
    /// leader knows that it leads. Ends with the candidate.
    fn observe(&self) -> BoxStream<'static, Option<Leader>>;
}

/// A leader, as others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leader {
    /// What it calls itself.
    pub name: String,
    /// Its token, as far as that is known here.
    pub token: Option<FencingToken>,
}

/// That this candidate leads, and for how long. Cloning is cheap; dropping it resigns nothing.
///
/// Ask [`Leadership::remaining`] before an act, and finish within it. A process can be stopped between its look at the
/// clock and its act: what cannot be bounded in time is protected by the token, at the resource
/// ([`synod_lease::FencedResource`]).
#[derive(Clone)]
pub struct Leadership {
    tenure: Tenure,
    standing: watch::Receiver<Standing>,
}

impl Leadership {
    pub(crate) fn new(tenure: Tenure, standing: watch::Receiver<Standing>) -> Leadership {
        Leadership { tenure, standing }
    }

    /// Higher than that of every leader before; none if who gives the lease out has none to give.
    #[must_use]
    pub fn token(&self) -> Option<FencingToken> {
        self.tenure.token
    }

    /// Until when the leader may act, on the clock of [`now`]; it moves on with every renewal. `None` if
    /// it may not act any more.
    #[must_use]
    pub fn valid_until(&self) -> Option<Instant> {
        self.until().filter(|until| *until > now())
    }

    /// How long the leader may still act; none if it may not.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        let left = self.until()?.saturating_since(now());
        (!left.is_zero()).then_some(left)
    }

    /// Waits until this leadership has ended: its lease has, or was given up. A leader that comes back later leads under
    /// another token, and this one stays lost.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn lost(&self) {
        let mut until = self.valid_until();
        while until.is_some() {
            until = self.changed(until).await;
        }
    }

    /// Waits until [`Leadership::valid_until`] is another than `from`, by a renewal or by the end; gives it.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn changed(&self, from: Option<Instant>) -> Option<Instant> {
        let mut standing = self.standing.clone();
        loop {
            standing.mark_unchanged();
            let until = self.valid_until();
            let (Some(end), true) = (until, until == from) else { return until };
            tokio::select! {
                () = sleep_until(end) => {}
                changed = standing.changed() => if changed.is_err() {
                    // Nobody renews it any more.
                    sleep_until(end).await;
                },
            }
        }
    }

    fn until(&self) -> Option<Instant> {
        let standing = self.standing.borrow();
        standing.tenure.filter(|tenure| tenure.number == self.tenure.number).map(|tenure| tenure.until)
    }
}

impl fmt::Debug for Leadership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Leadership");
        shown.field("token", &self.token()).field("remaining", &self.remaining()).finish()
    }
}
