//! What a recorded history says about speed and service.

use std::time::Duration;

use hdrhistogram::Histogram;
use synod_checker::{Action, History, Nanos, Operation, Outcome};

/// The part of a run that is measured, in the time of its history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Its start.
    pub from: Nanos,
    /// Its end.
    pub to: Nanos,
}

impl Window {
    fn contains(&self, at: Nanos) -> bool {
        self.from <= at && at < self.to
    }

    /// How long it is.
    #[must_use]
    pub fn length(&self) -> Duration {
        Duration::from_nanos(self.to.0.saturating_sub(self.from.0))
    }
}

/// Rates and latencies of a window.
#[derive(Clone, Debug)]
pub struct Speed {
    /// Of puts.
    pub writes: Figures,
    /// Of gets.
    pub reads: Figures,
}

/// Rate and latencies of one kind of operation.
#[derive(Clone, Debug)]
pub struct Figures {
    /// Operations that ended well inside the window.
    pub completed: u64,
    /// Completions a second.
    pub per_s: f64,
    /// Times from start to return, in nanoseconds, of operations that ended well and of which a part lay
    /// inside the window: neither those that were late at its start nor those at its end are left out.
    pub latencies: Histogram<u64>,
}

impl Speed {
    /// Counts and sorts a history. `intended` tells when its first operations of each client were meant to
    /// start if the loop was open, in the order of the history; others are timed from their call.
    #[must_use]
    pub fn of(history: &History, window: Window, intended: Option<&Intended>) -> Speed {
        let mut speed = Speed { writes: Figures::new(), reads: Figures::new() };
        for (position, operation) in history.operations().iter().enumerate() {
            if operation.outcome() != Outcome::Ok {
                continue;
            }
            let figures = match operation.action() {
                Action::Put(_) => &mut speed.writes,
                Action::Get(_) => &mut speed.reads,
            };
            let start = intended.and_then(|intended| intended.of(position)).unwrap_or(operation.call());
            figures.count(operation, start, window);
        }
        for figures in [&mut speed.writes, &mut speed.reads] {
            figures.per_s = figures.completed as f64 / window.length().as_secs_f64();
        }
        speed
    }
}

impl Figures {
    fn new() -> Figures {
        let latencies = Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).expect("fixed bounds");
        Figures { completed: 0, per_s: 0.0, latencies }
    }

    fn count(&mut self, operation: &Operation, start: Nanos, window: Window) {
        let Some(returned) = operation.returned() else { return };
        if window.contains(returned) {
            self.completed += 1;
        }
        if start < window.to && window.from <= returned {
            self.latencies.saturating_record(returned.0.saturating_sub(start.0));
        }
    }

    /// The latency that this share of operations did not exceed, in microseconds; none if there were none.
    #[must_use]
    pub fn quantile_us(&self, share: f64) -> Option<f64> {
        let some = !self.latencies.is_empty();
        some.then(|| self.latencies.value_at_quantile(share) as f64 / 1_000.0)
    }
}

/// When operations of a history were meant to start.
#[derive(Clone, Debug, Default)]
pub struct Intended(Vec<Option<Nanos>>);

impl Intended {
    /// Clients in the order of the history: how many operations each did, and when its first ones were meant
    /// to start.
    #[must_use]
    pub fn of_clients<'a>(clients: impl IntoIterator<Item = (usize, &'a [Nanos])>) -> Intended {
        let mut all = Vec::new();
        for (count, intended) in clients {
            let end = all.len() + count;
            all.extend(intended.iter().copied().map(Some));
            all.resize(end, None);
        }
        Intended(all)
    }

    fn of(&self, position: usize) -> Option<Nanos> {
        self.0.get(position).copied().flatten()
    }
}

/// Longer than any deadline here.
const LATENCY_NS_MAX: u64 = 100_000_000_000;

/// The longest interval that overlaps `crash` and in which no put of `load` ended well; `load` bounds it.
/// None if no put ended well in the whole of `load`, so that nothing can be said.
///
/// `crash` lasts from the crash to the restarted node's opening.
#[must_use]
pub fn unavailable(history: &History, load: Window, crash: Window) -> Option<Duration> {
    let ends =
        history.operations().iter().filter_map(|operation| match (operation.action(), operation.outcome()) {
            (Action::Put(_), Outcome::Ok) => operation.returned().filter(|at| load.contains(*at)),
            _ => None,
        });
    let mut ends: Vec<Nanos> = ends.collect();
    if ends.is_empty() {
        return None;
    }
    ends.extend([load.from, load.to]);
    ends.sort_unstable();
    let overlapping = ends.windows(2).filter(|gap| gap[0] <= crash.to && crash.from <= gap[1]);
    overlapping.map(|gap| Duration::from_nanos(gap[1].0 - gap[0].0)).max()
}

#[cfg(test)]
mod tests {
    use synod_checker::{ClientId, End, KeyId, Overlap, Sequence, ValueId};

    use super::*;

    fn history(operations: &[(bool, u64, End)]) -> History {
        let operation = |(seq, &(put, call, end)): (usize, &(bool, u64, End))| {
            let seq = seq as u64;
            let action = if put { Action::Put(ValueId(seq)) } else { Action::Get(None) };
            Operation::new(ClientId(0), Sequence(seq), KeyId(0), action, Nanos(call), end)
        };
        History::new(operations.iter().enumerate().map(operation).collect(), Overlap::Allow).unwrap()
    }

    fn window(from: u64, to: u64) -> Window {
        Window { from: Nanos(from), to: Nanos(to) }
    }

    #[test]
    fn rates_count_ends_inside_the_window_and_latencies_whatever_overlaps_it() {
        let ms = 1_000_000;
        let history = history(&[
            (true, 5 * ms, End::Ok(Nanos(15 * ms))),  // called before, ended inside
            (true, 20 * ms, End::Ok(Nanos(21 * ms))), // inside
            (true, 99 * ms, End::Ok(Nanos(119 * ms))), // called inside, ended after
            (true, 30 * ms, End::Failed(Nanos(31 * ms))),
            (true, 30 * ms, End::Unknown(Some(Nanos(31 * ms)))),
            (false, 40 * ms, End::Ok(Nanos(42 * ms))),
            (false, 1, End::Ok(Nanos(2))),
        ]);
        let speed = Speed::of(&history, window(10 * ms, 110 * ms), None);
        assert_eq!((speed.writes.completed, speed.reads.completed), (2, 1));
        assert!((speed.writes.per_s - 20.0).abs() < 1e-9 && (speed.reads.per_s - 10.0).abs() < 1e-9);
        assert_eq!((speed.writes.latencies.len(), speed.reads.latencies.len()), (3, 1));
        for (share, us) in [(0.3, 1_000.0), (0.5, 10_000.0), (0.99, 20_000.0)] {
            let found = speed.writes.quantile_us(share).unwrap();
            assert!((found / us - 1.0).abs() < 0.002, "{found} at {share}");
        }
    }

    #[test]
    fn in_an_open_loop_an_operation_is_timed_from_when_it_was_meant_to_start() {
        let us = 1_000;
        let put = |call, end| (true, call * us, End::Ok(Nanos(end * us)));
        // Two operations of the load, the second 90 us late, then a last read that nobody had planned.
        let history = history(&[put(0, 100), put(100, 110), (false, 120 * us, End::Ok(Nanos(121 * us)))]);
        let intended = Intended::of_clients([(3, &[Nanos(0), Nanos(10 * us)][..])]);
        let speed = Speed::of(&history, window(0, 200 * us), Some(&intended));
        let near = |found: u64, us_wanted: u64| found.abs_diff(us_wanted * us) < us / 10;
        assert!(near(speed.writes.latencies.min(), 100) && near(speed.writes.latencies.max(), 100));
        assert_eq!(speed.writes.latencies.len(), 2);
        assert!(near(speed.reads.latencies.max(), 1));
    }

    #[test]
    fn nothing_done_has_no_quantiles() {
        let speed = Speed::of(&history(&[]), window(0, 10), None);
        assert_eq!((speed.writes.quantile_us(0.5), speed.writes.completed), (None, 0));
    }

    #[test]
    fn the_outage_is_the_longest_gap_between_ends_of_puts_that_overlaps_the_crash() {
        let ok = |at| (true, at, End::Ok(Nanos(at)));
        let get = |at| (false, at, End::Ok(Nanos(at)));
        // The crash lasts from 100 to 200. A straggler ends at 110; service is back at 160; the longest gap of
        // all, 300 to 500, has nothing to do with it. Gets are no service of writes.
        let run = history(&[ok(50), ok(95), ok(110), get(120), ok(160), ok(210), ok(300), ok(500)]);
        assert_eq!(unavailable(&run, window(0, 600), window(100, 200)), Some(Duration::from_nanos(50)));
        let never_back = history(&[ok(50), ok(95)]);
        assert_eq!(
            unavailable(&never_back, window(0, 600), window(100, 200)),
            Some(Duration::from_nanos(505))
        );
        let only_gets = history(&[get(50)]);
        assert_eq!(unavailable(&only_gets, window(0, 600), window(100, 200)), None);
    }
}
