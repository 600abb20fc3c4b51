//! Hybrid logical clocks: Lamport's order, close to the wall clock, in 64 bits.

use core::fmt;
use core::time::Duration;

use crate::actor::ActorId;
use crate::error::ClockError;
use crate::stamp::Stamp;

/// A hybrid time: 48 bits of wall time, 16 bits of counter.
///
/// ```text
///   63                                16 15             0
///  +------------------------------------+---------------+
///  | l: seconds since 1970, in 2^-16 s  | c: counter    |   one number: comparing two times compares
///  +------------------------------------+---------------+   l, then c
///     32 bits of seconds, 16 of fraction
/// ```
///
/// One unit of `l` is 15.26 microseconds. The layout is that of Kulkarni and others (see [`HybridClock`]), counted from
/// 1970 and not from 1900, so it ends in February 2106. A counter that is full carries into `l`, which is what adding
/// one to the number does.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
pub struct HybridTime(u64);

/// What a wall clock showed, in units of 2^-16 seconds since 1970, rounded down.
///
/// The crate reads no clock: the caller does, and may take any (a simulated one as well).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WallReading(u64);

/// A hybrid logical clock.
///
/// ```text
///  wall   10     11     12                  local, send: l = max(l, wall); c + 1 if l stayed, else 0
///  n1   (10,0) (11,0) (12,0)-.              receive:     l = max(l, message's l, wall); c above those
///                             \                          of the same l, else 0
///  wall    7      8      9     v  10
///  n2   ( 7,0) ( 8,0) ( 9,0) (12,1)         n2's wall clock is behind: l waits, c counts
/// ```
///
/// Kulkarni, Demirbas, Madappa, Avva and Leone, *Logical Physical Clocks and Consistent Snapshots in Globally Distributed
/// Databases* (OPODIS 2014): the algorithm of its Figure 5, in one number. With `l` above `c`, its case distinction
/// becomes `max(last + 1, message + 1, wall)`.
///
/// - Like Lamport time: if `a` happened before `b`, then `time(a) < time(b)`.
/// - `l` is never behind the own wall clock, and ahead of it by no more than the greatest difference of two clocks, since
///   every `l` was a wall clock's reading on some node in the past.
/// - `c` stays small: it counts a chain of events within one reading of the fastest clock.
/// - It never runs backwards, whatever the wall clock does: behind a wall clock that was set back, `l` waits and `c`
///   counts.
///
/// **Limits.** Two times say nothing about causality, as with Lamport time. Last-writer-wins by hybrid time loses one of
/// two concurrent writes by design, and a node whose clock is ahead wins until the others have caught up. That is why
/// [`receive`](Self::receive) refuses times too far ahead. A local clock that jumps ahead is not noticed here: its
/// peers refuse it.
///
/// ```
/// use core::time::Duration;
/// use synod_clocks::{ActorId, ClockError, HybridClock, WallReading};
///
/// let at = |ms| WallReading::from_unix(Duration::from_millis(ms));
/// let mut n1 = HybridClock::new(ActorId::new(1), Duration::from_millis(500))?;
/// let mut n2 = HybridClock::new(ActorId::new(2), Duration::from_millis(500))?;
/// let sent = n1.send(at(1_000)?);
/// let received = n2.receive(sent.time, at(900)?)?;
/// assert!(received > sent);
/// assert!(n2.local(at(100)?) > received, "its wall clock was set back");
/// assert!(matches!(n2.receive(n1.send(at(9_000)?).time, at(900)?), Err(ClockError::Ahead { .. })));
/// # Ok::<(), ClockError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HybridClock {
    actor: ActorId,
    last: HybridTime,
    offset_max: Duration,
    /// `offset_max` in units of `l`.
    ahead_max: u64,
}

/// The longest `offset_max`.
const OFFSET_MAX: Duration = Duration::from_secs(3600);

/// Readings end here, 2^16 s before the 48 bits do: a received time may be an hour later, and counters may carry.
const READING_SECONDS_END: u64 = (1 << 32) - (1 << 16);

impl WallReading {
    /// A reading, as time since 1970-01-01 00:00 UTC.
    ///
    /// # Errors
    ///
    /// [`ClockError::Reading`] in the last 18 hours of the range, which is in February 2106, and after it.
    pub const fn from_unix(since_unix_epoch: Duration) -> Result<Self, ClockError> {
        let seconds = since_unix_epoch.as_secs();
        if seconds >= READING_SECONDS_END {
            return Err(ClockError::Reading { since_unix_epoch });
        }
        Ok(Self(seconds << 16 | fraction(since_unix_epoch.subsec_nanos())))
    }
}

impl HybridTime {
    /// The time with this number: see [`to_u64`](Self::to_u64).
    #[must_use]
    pub const fn from_u64(number: u64) -> Self {
        Self(number)
    }

    /// The time as one number, ordered like the times.
    #[must_use]
    pub const fn to_u64(self) -> u64 {
        self.0
    }

    /// The wall part, as time since 1970.
    #[must_use]
    pub const fn since_unix_epoch(self) -> Duration {
        duration(self.0 >> 16)
    }

    /// The counter.
    #[must_use]
    pub const fn counter(self) -> u16 {
        self.0 as u16
    }
}

impl HybridClock {
    /// A clock of `actor` that refuses times more than `offset_max` ahead of its own wall clock: well above what the
    /// clocks of the system differ by. 500 ms is usual.
    ///
    /// After a restart, give it the last time that was stored, or any later one, with [`resume`](Self::resume).
    ///
    /// # Errors
    ///
    /// [`ClockError::Offset`] above one hour.
    pub const fn new(actor: ActorId, offset_max: Duration) -> Result<Self, ClockError> {
        if offset_max.as_secs() > OFFSET_MAX.as_secs() {
            return Err(ClockError::Offset { offset_max });
        }
        let ahead_max = offset_max.as_secs() << 16 | fraction(offset_max.subsec_nanos());
        Ok(Self { actor, last: HybridTime(0), offset_max, ahead_max })
    }

    /// Goes on after a time of an earlier life.
    ///
    /// # Errors
    ///
    /// [`ClockError::Ahead`] as for [`receive`](Self::receive): a store from the future is no base to go on from.
    pub fn resume(&mut self, stored: HybridTime, wall: WallReading) -> Result<(), ClockError> {
        self.refuse_ahead(stored, wall)?;
        self.last = self.last.max(stored);
        Ok(())
    }

    /// The stamp of the last event.
    #[must_use]
    pub const fn now(&self) -> Stamp<HybridTime> {
        Stamp { time: self.last, actor: self.actor }
    }

    /// An event here.
    ///
    /// # Panics
    ///
    /// After 2^48 events that no reading moved on, in 2106: never in this century.
    pub fn local(&mut self, wall: WallReading) -> Stamp<HybridTime> {
        assert!(self.last.0 < u64::MAX, "a hybrid clock never wraps");
        self.last = HybridTime((self.last.0 + 1).max(wall.0 << 16));
        self.now()
    }

    /// An event that sends: attach the returned time to the message.
    pub fn send(&mut self, wall: WallReading) -> Stamp<HybridTime> {
        self.local(wall)
    }

    /// The receipt of a message with the time it was sent.
    ///
    /// # Errors
    ///
    /// [`ClockError::Ahead`] if it is more than `offset_max` ahead of `wall`. The clock is as it was, and the message
    /// must not take effect: whatever it wrote would win for a long time.
    pub fn receive(&mut self, sent: HybridTime, wall: WallReading) -> Result<Stamp<HybridTime>, ClockError> {
        self.refuse_ahead(sent, wall)?;
        self.last = self.last.max(sent);
        Ok(self.local(wall))
    }

    /// How far the clock is ahead of the wall clock: alarm on it. It grows when the wall clock is set back, and it is
    /// the largest difference to any peer that was heard of.
    #[must_use]
    pub const fn ahead(&self, wall: WallReading) -> Duration {
        duration((self.last.0 >> 16).saturating_sub(wall.0))
    }

    fn refuse_ahead(&self, time: HybridTime, wall: WallReading) -> Result<(), ClockError> {
        if time.0 >> 16 > wall.0 + self.ahead_max {
            let ahead = duration((time.0 >> 16) - wall.0);
            return Err(ClockError::Ahead { ahead, offset_max: self.offset_max });
        }
        Ok(())
    }
}

impl fmt::Display for HybridTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wall = self.since_unix_epoch();
        write!(f, "{}.{:06}+{}", wall.as_secs(), wall.subsec_micros(), self.counter())
    }
}

impl fmt::Debug for HybridTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Nanoseconds of a second as 2^-16 s.
const fn fraction(nanos: u32) -> u64 {
    ((nanos as u64) << 16) / 1_000_000_000
}

/// Units of 2^-16 s as a duration, rounded to the nearest nanosecond.
const fn duration(units: u64) -> Duration {
    let nanos = ((units & 0xffff) * 1_000_000_000 + (1 << 15)) >> 16;
    Duration::new(units >> 16, nanos as u32)
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    fn clock() -> HybridClock {
        HybridClock::new(ActorId::new(1), Duration::from_millis(500)).unwrap()
    }

    fn wall(units: u64) -> WallReading {
        WallReading(units)
    }

    fn time(l: u64, c: u64) -> HybridTime {
        HybridTime(l << 16 | c)
    }

    #[test]
    fn the_four_cases_of_a_receipt_are_those_of_the_paper() {
        let cases = [
            ("the wall clock is ahead of both", 9, time(5, 3), time(7, 4), time(9, 0)),
            ("all know the same l", 5, time(5, 3), time(5, 8), time(5, 9)),
            ("the own l is ahead", 2, time(7, 3), time(5, 8), time(7, 4)),
            ("the l of the message is ahead", 2, time(5, 3), time(7, 8), time(7, 9)),
        ];
        for (case, reading, own, sent, expected) in cases {
            let mut clock = clock();
            clock.last = own;
            assert_eq!(clock.receive(sent, wall(reading)).unwrap().time, expected, "{case}");
        }
    }

    #[test]
    fn it_is_monotone_under_a_wall_clock_that_is_set_back() {
        let mut clock = clock();
        let before = clock.local(wall(1_000_000));
        let after = clock.local(wall(10));
        assert_eq!(after.time, time(1_000_000, 1));
        assert!(after > before);
        assert_eq!(clock.ahead(wall(10)), duration(999_990));
    }

    #[test]
    fn a_full_counter_carries_into_the_wall_part() {
        let mut clock = clock();
        clock.last = time(5, 0xffff);
        assert_eq!(clock.local(wall(5)).time, time(6, 0));
    }

    #[test]
    fn a_time_too_far_ahead_changes_nothing() {
        let mut clock = clock();
        clock.local(wall(100));
        let before = clock.now();
        let half_a_second = 1 << 15;
        assert!(clock.receive(time(100 + half_a_second + 1, 0), wall(100)).is_err());
        assert!(clock.receive(HybridTime(u64::MAX), wall(100)).is_err());
        assert!(clock.resume(HybridTime(u64::MAX), wall(100)).is_err());
        assert_eq!(clock.now(), before);
        assert!(clock.receive(time(100 + half_a_second, 0), wall(100)).is_ok());
    }

    #[test]
    fn the_last_readings_of_the_range_are_refused_and_the_one_before_leaves_room() {
        let end = Duration::from_secs(READING_SECONDS_END);
        assert!(matches!(WallReading::from_unix(end), Err(ClockError::Reading { .. })));
        let last = WallReading::from_unix(end - Duration::from_nanos(1)).unwrap();
        let mut clock = HybridClock::new(ActorId::new(1), OFFSET_MAX).unwrap();
        let sent = time(last.0 + (3600 << 16), 0xffff);
        assert!(clock.receive(sent, last).unwrap().time > sent);
    }

    #[test]
    fn a_resumed_clock_goes_on_after_its_earlier_life() {
        let mut clock = clock();
        clock.resume(time(700, 4), wall(690)).unwrap();
        assert_eq!(clock.local(wall(691)).time, time(700, 5));
    }

    #[test]
    fn the_wall_part_is_the_reading() {
        let reading = Duration::new(1_700_000_000, 999_999_999);
        let shown = clock().local(WallReading::from_unix(reading).unwrap()).time.since_unix_epoch();
        assert!(reading - shown < Duration::from_nanos(15_260), "{reading:?} {shown:?}");
        assert_eq!(HybridTime::from_u64(time(1 << 16, 3).to_u64()).to_string(), "1.000000+3");
    }
}
