//! Between a candidate's task and whoever waits for it: what is wished, how the candidate stands, who is seen to lead.

use std::sync::Arc;

use futures::stream::{self, BoxStream, StreamExt};
use synod_core::Instant;
use synod_lease::FencingToken;
use tokio::sync::watch;

use crate::clock::now;
use crate::{ElectionError, Leader, Leadership};

/// What callers hold of a candidate. Dropping the last one ends the candidate's task, which gives up what it holds.
#[derive(Debug)]
pub(crate) struct Seat {
    wishes: watch::Sender<Wish>,
    standing: watch::Receiver<Standing>,
    seen: watch::Receiver<Option<Leader>>,
}

/// What the candidate's task holds.
#[derive(Debug)]
pub(crate) struct Chair {
    pub(crate) wishes: watch::Receiver<Wish>,
    standing: watch::Sender<Standing>,
    seen: watch::Sender<Option<Leader>>,
}

/// What callers want.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) campaign: bool,
    /// Rises with every change.
    pub(crate) number: u64,
}

/// How the candidate stands.
#[derive(Clone, Debug, Default)]
pub(crate) struct Standing {
    pub(crate) tenure: Option<Tenure>,
    tenures: u64,
    /// The last wish that is carried out.
    settled: u64,
    ended: Option<Arc<ElectionError>>,
}

/// One unbroken leadership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tenure {
    pub(crate) number: u64,
    pub(crate) token: Option<FencingToken>,
    pub(crate) until: Instant,
}

/// Both ends.
pub(crate) fn seat() -> (Seat, Chair) {
    let (wishes, wished) = watch::channel(Wish::default());
    let (standing, stands) = watch::channel(Standing::default());
    let (seen, sees) = watch::channel(None);
    (Seat { wishes, standing: stands, seen: sees }, Chair { wishes: wished, standing, seen })
}

impl Seat {
    pub(crate) async fn campaign(&self) -> Result<Leadership, ElectionError> {
        let withdrawal = self.wish(true).map(|number| Withdrawal { seat: self, number });
        let mut standing = self.standing.clone();
        let leads = |standing: &Standing| standing.tenure.is_some_and(|tenure| tenure.until > now());
        let found = standing.wait_for(|standing| standing.ended.is_some() || leads(standing)).await;
        let found = found.map_err(|_| ElectionError::Gone)?.clone();
        if let Some(withdrawal) = withdrawal {
            std::mem::forget(withdrawal);
        }
        match (found.ended, found.tenure) {
            (None, Some(tenure)) => Ok(Leadership::new(tenure, self.standing.clone())),
            (ended, _) => Err(ElectionError::Ended(ended.unwrap_or_else(|| Arc::new(ElectionError::Gone)))),
        }
    }

    pub(crate) async fn resign(&self) -> Result<(), ElectionError> {
        self.wish(false);
        let number = self.wishes.borrow().number;
        let mut standing = self.standing.clone();
        let found =
            standing.wait_for(|standing| standing.ended.is_some() || standing.settled >= number).await;
        match &found.map_err(|_| ElectionError::Gone)?.ended {
            None => Ok(()),
            Some(why) => Err(ElectionError::Ended(Arc::clone(why))),
        }
    }

    pub(crate) fn observe(&self) -> BoxStream<'static, Option<Leader>> {
        let mut seen = self.seen.clone();
        seen.mark_changed();
        stream::unfold(seen, |mut seen| async move {
            seen.changed().await.ok()?;
            let leader = seen.borrow_and_update().clone();
            Some((leader, seen))
        })
        .boxed()
    }

    /// The number of the wish, if it is a new one.
    fn wish(&self, campaign: bool) -> Option<u64> {
        let mut number = None;
        self.wishes.send_if_modified(|wish| {
            let changes = wish.campaign != campaign;
            if changes {
                *wish = Wish { campaign, number: wish.number + 1 };
                number = Some(wish.number);
            }
            changes
        });
        number
    }
}

/// Withdraws a campaign that nobody waits for any more.
struct Withdrawal<'a> {
    seat: &'a Seat,
    number: u64,
}

impl Drop for Withdrawal<'_> {
    fn drop(&mut self) {
        self.seat.wishes.send_if_modified(|wish| {
            let own = wish.number == self.number;
            if own {
                *wish = Wish { campaign: false, number: wish.number + 1 };
            }
            own
        });
    }
}

impl Chair {
    /// The candidate leads, or for longer. A leadership that had ended, or another token, begins a new one.
    pub(crate) fn holds(&self, token: Option<FencingToken>, until: Instant) {
        self.standing.send_modify(|standing| {
            let goes_on = standing.tenure.is_some_and(|tenure| tenure.token == token && tenure.until > now());
            if !goes_on {
                standing.tenures += 1;
                tracing::info!(token = token.map(|token| token.0), "leads");
            }
            standing.tenure = Some(Tenure { number: standing.tenures, token, until });
        });
    }

    /// The candidate does not lead.
    pub(crate) fn lost(&self) {
        self.standing.send_if_modified(|standing| {
            let led = standing.tenure.take();
            if let Some(tenure) = led {
                tracing::info!(token = tenure.token.map(|token| token.0), "does not lead any more");
            }
            led.is_some()
        });
    }

    /// This wish is carried out.
    pub(crate) fn settled(&self, number: u64) {
        self.standing.send_if_modified(|standing| {
            let new = standing.settled < number;
            standing.settled = standing.settled.max(number);
            new
        });
    }

    /// This is who is seen to lead.
    pub(crate) fn sees(&self, leader: Option<Leader>) {
        self.seen.send_if_modified(|seen| {
            let changes = *seen != leader;
            *seen = leader;
            changes
        });
    }

    /// The candidate cannot go on.
    pub(crate) fn ended(&self, why: ElectionError) {
        tracing::error!(%why, "the candidate ends");
        self.standing.send_modify(|standing| {
            standing.tenure = None;
            standing.ended = Some(Arc::new(why));
        });
    }

    /// The wish there is now. `None` once nobody holds the other end.
    pub(crate) fn wish(&mut self) -> Option<Wish> {
        // An error of `has_changed` says that the sender is gone.
        self.wishes.has_changed().is_ok().then(|| *self.wishes.borrow_and_update())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn ahead(milliseconds: u64) -> Instant {
        now() + Duration::from_millis(milliseconds)
    }

    #[tokio::test]
    async fn a_leadership_goes_on_with_its_renewals_and_ends_with_its_lease() {
        let (seat, chair) = seat();
        let token = Some(FencingToken(1));
        chair.holds(token, ahead(30));
        let leadership = seat.campaign().await.unwrap();
        let longer = ahead(60);
        chair.holds(token, longer);
        assert_eq!(leadership.valid_until(), Some(longer));
        leadership.lost().await;
        assert!(now() >= longer);
        assert_eq!(leadership.remaining(), None);
    }

    #[tokio::test]
    async fn a_leadership_that_was_lost_stays_lost_when_the_candidate_leads_again() {
        let (seat, chair) = seat();
        chair.holds(Some(FencingToken(1)), ahead(60_000));
        let first = seat.campaign().await.unwrap();
        chair.lost();
        chair.holds(Some(FencingToken(2)), ahead(60_000));
        first.lost().await;
        assert_eq!(first.valid_until(), None);
        assert_eq!(seat.campaign().await.unwrap().token(), Some(FencingToken(2)));
    }

    #[tokio::test]
    async fn a_campaign_that_nobody_waits_for_is_withdrawn() {
        let (seat, mut chair) = seat();
        assert!(tokio::time::timeout(Duration::from_millis(1), seat.campaign()).await.is_err());
        assert!(!chair.wish().unwrap().campaign);
        drop(seat);
        assert_eq!(chair.wish(), None);
    }

    #[tokio::test]
    async fn the_end_of_a_candidate_reaches_whoever_waits_for_it() {
        let (seat, chair) = seat();
        chair.holds(None, ahead(60_000));
        let leadership = seat.campaign().await.unwrap();
        chair.ended(ElectionError::Gone);
        leadership.lost().await;
        assert!(matches!(seat.campaign().await, Err(ElectionError::Ended(_))));
        assert!(matches!(seat.resign().await, Err(ElectionError::Ended(_))));
        let leadership_of_nobody = Leadership::new(leadership_tenure(ahead(10)), seat.standing.clone());
        drop(chair);
        leadership_of_nobody.lost().await;
    }

    fn leadership_tenure(until: Instant) -> Tenure {
        Tenure { number: 9, token: None, until }
    }
}
