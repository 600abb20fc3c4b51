//! Vectors are a partial order and a join semilattice, as are replicas of an object under synchronisation.

use std::collections::BTreeMap;

use proptest::prelude::*;
use synod_clocks::strategy::{dots, hybrid_times, replicas, vector_times, version_vectors};
use synod_clocks::{
    ActorId, CausalContext, Causality, DottedVersionVectorSet, HybridTime, MultiVersionRegister, Timed,
    VectorTime, VersionVector,
};

/// A version vector by its definition: a map.
fn as_map(version: &VersionVector) -> BTreeMap<ActorId, u64> {
    version.iter().map(|dot| (dot.actor(), dot.counter())).collect()
}

fn compare_by_definition(left: &VersionVector, right: &VersionVector) -> Causality {
    let contains =
        |a: &VersionVector, b: &VersionVector| as_map(b).iter().all(|(actor, n)| a.get(*actor) >= *n);
    match (contains(left, right), contains(right, left)) {
        (true, true) => Causality::Equal,
        (true, false) => Causality::After,
        (false, true) => Causality::Before,
        (false, false) => Causality::Concurrent,
    }
}

fn merged(left: &VersionVector, right: &VersionVector) -> VersionVector {
    let mut merged = left.clone();
    merged.merge(right);
    merged
}

fn synced<T: Clone>(
    left: &DottedVersionVectorSet<T>,
    right: &DottedVersionVectorSet<T>,
) -> DottedVersionVectorSet<T> {
    let mut synced = left.clone();
    synced.sync(right);
    synced
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn one_pass_comparison_is_the_definition(a in version_vectors(), b in version_vectors()) {
        prop_assert_eq!(a.compare(&b), compare_by_definition(&a, &b));
        prop_assert_eq!(a.compare(&b), b.compare(&a).reverse());
        prop_assert_eq!(a.compare(&b) == Causality::Equal, a == b);
    }

    #[test]
    fn descending_is_a_partial_order(a in version_vectors(), b in version_vectors(), c in version_vectors()) {
        let descends = |x: &VersionVector, y: &VersionVector| x.compare(y).descends();
        prop_assert!(descends(&a, &a));
        prop_assert!(!(descends(&a, &b) && descends(&b, &a)) || a == b);
        prop_assert!(!(descends(&a, &b) && descends(&b, &c)) || descends(&a, &c));
        // Chains are rare among random vectors; these two always are some.
        let (ab, abc) = (merged(&a, &b), merged(&merged(&a, &b), &c));
        prop_assert!(descends(&abc, &ab) && descends(&ab, &a) && descends(&abc, &a));
    }

    #[test]
    fn merge_is_the_least_upper_bound(a in version_vectors(), b in version_vectors(), c in version_vectors()) {
        let ab = merged(&a, &b);
        let mut by_definition = as_map(&a);
        for (actor, n) in as_map(&b) {
            let count = by_definition.entry(actor).or_default();
            *count = n.max(*count);
        }
        prop_assert_eq!(as_map(&ab), by_definition);
        prop_assert_eq!(&ab, &merged(&b, &a));
        prop_assert_eq!(&merged(&a, &a), &a);
        prop_assert_eq!(merged(&ab, &c), merged(&a, &merged(&b, &c)));
        prop_assert!(ab.compare(&a).descends() && ab.compare(&b).descends());
        let above_both = merged(&merged(&b, &c), &a);
        prop_assert!(above_both.compare(&ab).descends());
    }

    #[test]
    fn recording_is_monotone_and_names_the_next_dot(mut version in version_vectors(), dot in dots()) {
        let before = version.clone();
        let next = version.record(dot.actor());
        prop_assert_eq!(next.counter(), before.get(dot.actor()) + 1);
        prop_assert!(!before.contains(next) && version.contains(next));
        prop_assert_eq!(version.compare(&before), Causality::After);
        version.include(dot);
        prop_assert!(version.contains(dot));
        prop_assert!(version.compare(&before).descends());
    }

    #[test]
    fn synchronising_is_a_join(states in replicas(3, any::<u8>())) {
        let [a, b, c] = &states[..] else { unreachable!("three were asked for") };
        let ab = synced(a, b);
        prop_assert_eq!(&ab, &synced(b, a));
        prop_assert_eq!(&synced(a, a), a);
        prop_assert_eq!(synced(&ab, c), synced(a, &synced(b, c)));
        prop_assert!(ab.compare(a).descends() && ab.compare(b).descends());
        prop_assert_eq!(a.compare(b), b.compare(a).reverse());
        prop_assert_eq!(a.compare(b).descends(), &ab == a);
        prop_assert_eq!(a.compare(b) == Causality::Equal, a == b);
        prop_assert_eq!(ab.join(), merged(&a.join(), &b.join()));
    }

    #[test]
    fn a_context_covers_every_sibling(states in replicas(3, any::<u8>())) {
        for state in &states {
            prop_assert!(state.siblings().all(|sibling| state.join().contains(sibling.dot)));
            prop_assert_eq!(state.siblings().count(), state.len());
            let mut emptied = state.clone();
            emptied.discard(&state.join());
            prop_assert!(emptied.is_empty());
        }
    }

    #[test]
    fn every_value_survives_its_encodings(
        states in replicas(3, any::<(u64, String)>()),
        version in version_vectors(),
        time in vector_times(),
        hybrid in hybrid_times(),
    ) {
        prop_assert_eq!(&VersionVector::from_bytes(&version.to_bytes()).unwrap(), &version);
        prop_assert_eq!(&VectorTime::from_bytes(&time.to_bytes()).unwrap(), &time);
        prop_assert_eq!(through_json(&version), version);
        prop_assert_eq!(through_json(&time), time);
        prop_assert_eq!(through_json(&hybrid), hybrid);
        for state in states {
            let mut register = MultiVersionRegister::new();
            let context = CausalContext::none();
            for (at, sibling) in state.siblings().enumerate() {
                let (time, value) = (HybridTime::from_u64(sibling.value.0), sibling.value.1.clone());
                register.put(ActorId::new(at as u32 % 3), &context, Timed { time, value });
            }
            let context = register.get().context;
            prop_assert_eq!(&MultiVersionRegister::from_bytes(&register.to_bytes()).unwrap(), &register);
            prop_assert_eq!(&CausalContext::from_bytes(&context.to_bytes()).unwrap(), &context);
            prop_assert_eq!(&through_json(&register), &register);
            prop_assert_eq!(through_json(&context), context);
            prop_assert_eq!(&through_json(&state), &state);
        }
    }
}

fn through_json<T: serde::Serialize + serde::de::DeserializeOwned>(value: &T) -> T {
    serde_json::from_str(&serde_json::to_string(value).unwrap()).unwrap()
}

#[test]
fn serde_refuses_what_the_encoding_refuses() {
    let dot = |node: u32, counter: u64| {
        format!(r#"{{"actor":{{"node":{node},"incarnation":0}},"counter":{counter}}}"#)
    };
    let version = |dots: &[String]| serde_json::from_str::<VersionVector>(&format!("[{}]", dots.join(",")));
    assert!(version(&[dot(1, 1), dot(2, 1)]).is_ok());
    assert!(version(&[dot(1, 1), dot(1, 2)]).is_err(), "one actor twice");
    assert!(version(&[dot(1, 0)]).is_err(), "a counter of zero");
    assert!(version(&[dot(1, u64::MAX)]).is_err(), "a counter out of range");
    let set = format!(r#"[{{"last":{},"values":[1,2]}}]"#, dot(1, 1));
    assert!(serde_json::from_str::<DottedVersionVectorSet<u8>>(&set).is_err(), "more values than events");
}
