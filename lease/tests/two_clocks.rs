//! Two holders and one grantor, each with its own clock, and a network that does what it likes.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use synod_core::{ClockBound, Instant};
use synod_lease::{FencingToken, Grant, Grantor, Holder, Request};

const SECOND: Duration = Duration::from_secs(1);

/// How far each clock may be wrong, in parts of a million.
const DRIFT_PPM: i64 = 1_000;

/// What happens next.
#[derive(Clone, Copy, Debug)]
enum Act {
    /// This one asks for the lease, or for more of it.
    Ask(usize),
    /// A request that is under way reaches the grantor.
    Arrive(usize),
    /// An answer that is under way reaches who asked.
    Answer(usize),
    /// This one gives the lease up, and the grantor hears of it at once.
    Release(usize),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (0_usize..2).prop_map(Act::Ask),
        4 => any::<usize>().prop_map(Act::Arrive),
        4 => any::<usize>().prop_map(Act::Answer),
        1 => (0_usize..2).prop_map(Act::Release),
    ]
}

/// What a clock shows that runs at a rate of its own.
fn local(real: u64, rate_ppm: i64) -> Instant {
    Instant((u128::from(real) * (1_000_000 + i128::from(rate_ppm)) as u128 / 1_000_000) as u64)
}

/// What is under way, one of it chosen.
fn take<T>(under_way: &mut Vec<T>, choice: usize) -> Option<T> {
    (!under_way.is_empty()).then(|| under_way.remove(choice % under_way.len()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Requests and answers arrive in any order and after any time.
    #[test]
    fn two_holders_never_act_at_once_and_tokens_rise(
        rates in proptest::array::uniform3(-DRIFT_PPM..=DRIFT_PPM),
        acts in vec((0_u64..600_000_000, act()), 1..60),
    ) {
        let bound = ClockBound::new(DRIFT_PPM as u32, Duration::ZERO).unwrap();
        let mut grantor = Grantor::new(Instant(0), SECOND, FencingToken(0));
        let mut holders = [Holder::new(bound), Holder::new(bound)];
        let mut requests: Vec<(usize, Request)> = Vec::new();
        let mut answers: Vec<(usize, Request, Grant)> = Vec::new();
        let (mut real, mut highest) = (0, FencingToken(0));
        for (pause, act) in acts {
            real += pause;
            match act {
                Act::Ask(who) => requests.push((who, holders[who].ask(local(real, rates[who])))),
                Act::Arrive(choice) => {
                    if let Some((who, request)) = take(&mut requests, choice)
                        && let Ok(grant) = grantor.grant(local(real, rates[2]), who)
                    {
                        answers.push((who, request, grant));
                    }
                }
                Act::Answer(choice) => {
                    if let Some((who, request, grant)) = take(&mut answers, choice) {
                        let now = local(real, rates[who]);
                        if holders[who].granted(now, request, grant.granted, Some(grant.token)) {
                            prop_assert!(grant.token >= highest);
                            highest = grant.token;
                        }
                    }
                }
                Act::Release(who) => {
                    if let Some(token) = holders[who].token(local(real, rates[who])) {
                        holders[who].release();
                        grantor.release(token);
                    }
                }
            }
            let acting = |holder: usize| holders[holder].remaining(local(real, rates[holder])).is_some();
            prop_assert!(!(acting(0) && acting(1)));
        }
    }
}
