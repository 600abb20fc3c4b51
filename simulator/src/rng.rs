//! The one source of randomness of a seed.

use rand_core::{Rng as _, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

/// A seeded generator with the draws that the simulator needs, all in integer arithmetic, so that a seed
/// means the same on every platform.
#[derive(Clone, Debug)]
pub struct Rng(Xoshiro256PlusPlus);

/// A probability, in parts of a million.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Chance(pub u32);

impl Chance {
    /// Never.
    pub const NEVER: Chance = Chance(0);

    /// So many in a hundred.
    #[must_use]
    pub const fn percent(percent: u32) -> Chance {
        Chance(percent * 10_000)
    }
}

impl Rng {
    /// The generator of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Rng {
        Rng(Xoshiro256PlusPlus::seed_from_u64(seed))
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number in `0..bound`; 0 if `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(bound)) >> 64) as u64
    }

    /// An index of a slice of this length.
    pub fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// A number in `low..=high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// True with this probability; draws nothing for "never".
    pub fn chance(&mut self, chance: Chance) -> bool {
        chance.0 > 0 && self.below(1_000_000) < u64::from(chance.0)
    }

    /// True half of the time.
    pub fn coin(&mut self) -> bool {
        self.bits() >> 63 == 1
    }

    /// One of the items.
    ///
    /// # Panics
    /// If there is none.
    pub fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.index(items.len())]
    }

    /// A number between `low` and `high` whose order of magnitude is uniform.
    pub fn log_between(&mut self, low: u64, high: u64) -> u64 {
        let (low, high) = (low.max(1), high.max(1));
        let octaves = u64::from((high / low).max(1).ilog2());
        let base = low << self.below(octaves + 1);
        self.between(base, (base * 2 - 1).clamp(base, high.max(base)))
    }

    /// A waiting time with about this mean, exponential but for a straightened logarithm.
    pub fn exponential(&mut self, mean: u64) -> u64 {
        let bits = self.bits() | 1;
        let zeros = u64::from(bits.leading_zeros());
        let fraction = ((bits << 1 << zeros) >> 48) & 0xFFFF;
        // -log2 of a number in (0, 1), times 2^16, with the logarithm between powers of two a straight line.
        let halvings = (zeros << 16) + (0x1_0000 - fraction);
        ((u128::from(mean) * u128::from(halvings) * 45_426) >> 32) as u64
    }

    /// A seed for another generator.
    pub fn fork(&mut self) -> u64 {
        self.bits()
    }

    /// Brings the items into random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            items.swap(at, self.index(at + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_stay_in_their_bounds_and_keep_their_mean() {
        let mut rng = Rng::new(7);
        let mut sum = 0;
        for _ in 0..100_000 {
            assert!(rng.below(10) < 10);
            assert!((3..=5).contains(&rng.between(3, 5)));
            assert!((8..=5_000).contains(&rng.log_between(8, 5_000)));
            sum += rng.exponential(1_000_000);
        }
        let mean = sum / 100_000;
        assert!((900_000..1_150_000).contains(&mean), "{mean}");
        assert_eq!((0..1000).filter(|_| rng.chance(Chance::NEVER)).count(), 0);
        assert_eq!((0..1000).filter(|_| rng.chance(Chance::percent(100))).count(), 1000);
    }
}
