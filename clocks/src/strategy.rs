//! Random values for property tests, and the laws of a merge function (feature `proptest`).

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Debug;

use proptest::collection::{btree_map, vec};
use proptest::prelude::{Strategy, any};
use proptest::test_runner::{Config, TestCaseError, TestRunner};

use crate::actor::{ActorId, Dot};
use crate::dotted::DottedVersionVectorSet;
use crate::hybrid::HybridTime;
use crate::laws::broken_law;
use crate::vector::VectorTime;
use crate::version::VersionVector;

/// A few nodes in a few lives, so that random vectors name the same actors.
pub fn actors() -> impl Strategy<Value = ActorId> {
    (0..6_u32, 0..2_u32).prop_map(|(node, incarnation)| ActorId::new(node).with_incarnation(incarnation))
}

/// Small events, so that random vectors have equal counters.
pub fn dots() -> impl Strategy<Value = Dot> {
    (actors(), 1..5_u64).prop_map(|(actor, counter)| Dot { actor, counter })
}

/// Version vectors with up to 12 actors: some stay inline, some do not.
pub fn version_vectors() -> impl Strategy<Value = VersionVector> {
    counters().prop_map(|dots| VersionVector::from_dots(dots).expect("the keys of a map differ"))
}

/// Vector times, as [`version_vectors`].
pub fn vector_times() -> impl Strategy<Value = VectorTime> {
    counters().prop_map(|dots| VectorTime::from_dots(dots).expect("the keys of a map differ"))
}

/// Any hybrid time.
pub fn hybrid_times() -> impl Strategy<Value = HybridTime> {
    any::<u64>().prop_map(HybridTime::from_u64)
}

/// Replicas of one object, after a random history of writes, deletes and synchronisations: what can really come to be.
pub fn replicas<T: Clone + Debug>(
    count: usize,
    values: impl Strategy<Value = T>,
) -> impl Strategy<Value = Vec<DottedVersionVectorSet<T>>> {
    let step = (0..count, 0..count, 0..4_u8, values);
    vec(step, 0..40).prop_map(move |steps| {
        let mut replicas: Vec<DottedVersionVectorSet<T>> = Vec::new();
        replicas.resize_with(count, DottedVersionVectorSet::new);
        let mut context = VersionVector::new();
        for (here, there, kind, value) in steps {
            let actor = ActorId::new(here as u32);
            match kind {
                0 => context = replicas[here].join(),
                1 => {
                    replicas[here].update(actor, &context, value);
                }
                2 => replicas[here].discard(&context),
                _ => {
                    let other = replicas[there].clone();
                    replicas[here].sync(&other);
                }
            }
        }
        replicas
    })
}

/// Checks that `merge` is commutative, associative and idempotent on random values: what
/// [`MergeWith`](crate::MergeWith) asks for.
///
/// # Errors
///
/// The law that is broken, with the smallest values found that break it.
///
/// ```
/// use synod_clocks::strategy::check_merge;
/// check_merge(0..100_u32, |a, b| *a.max(b))?;
/// assert!(check_merge(0..100_u32, |a, b| a + b).unwrap_err().contains("not idempotent"));
/// # Ok::<(), String>(())
/// ```
pub fn check_merge<S>(values: S, merge: impl Fn(&S::Value, &S::Value) -> S::Value) -> Result<(), String>
where
    S: Strategy,
    S::Value: Clone + PartialEq,
{
    let config = Config { failure_persistence: None, ..Config::default() };
    let three = vec(values, 3);
    let outcome = TestRunner::new(config).run(&three, |values| {
        match broken_law(&merge, &values[0], &values[1], &values[2]) {
            None => Ok(()),
            Some(law) => Err(TestCaseError::fail(format!("the merge function is not {law}"))),
        }
    });
    outcome.map_err(|failure| format!("{failure}"))
}

fn counters() -> impl Strategy<Value = Vec<Dot>> {
    let map = btree_map(actors(), 1..5_u64, 0..12);
    map.prop_map(|map| map.into_iter().map(|(actor, counter)| Dot { actor, counter }).collect())
}
