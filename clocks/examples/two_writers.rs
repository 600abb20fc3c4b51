//! Two replicas write at once: what each clock can say of it, and three ways to resolve it.
//!
//! `cargo run -p synod-clocks --example two_writers`

use std::collections::BTreeSet;
use std::error::Error;
use std::time::Duration;

use synod_clocks::{
    ActorId, Answer, CausalContext, Causality, HybridClock, LamportClock, LastWriterWins, MergeWith,
    MultiVersionRegister, Resolver, ReturnToClient, Timed, VectorClock, VersionVector, WallReading,
};

const PARIS: ActorId = ActorId::new(1);
const TOKYO: ActorId = ActorId::new(2);

/// A shopping basket.
type Basket = BTreeSet<&'static str>;

fn main() -> Result<(), Box<dyn Error>> {
    println!("Paris and Tokyo write at once; neither has heard of the other.\n");
    let (apart, in_order) = lamport();
    println!("Lamport time   {apart} when apart, {in_order} when Tokyo had read it first: it cannot tell");
    println!("vector clock   {}", vector());
    println!("version vector {}: a conflict\n", version());

    let [mut paris, mut tokyo] = baskets()?;
    paris.merge(&tokyo);
    tokyo.merge(&paris);
    let (to_client, last_writer) = (ReturnToClient, LastWriterWins);
    let union = MergeWith(union);
    for (name, replica) in [("Paris", &paris), ("Tokyo", &tokyo)] {
        println!("{name} returns to the client  {}", show(replica, &to_client));
        println!("{name}, last writer wins      {}", show(replica, &last_writer));
        println!("{name}, merged                {}", show(replica, &union));
    }

    let resolved = paris.resolve(&union);
    if let Answer::Value(basket) = resolved.answer {
        paris.put(PARIS, &resolved.context, basket);
    }
    tokyo.merge(&paris);
    println!("\nParis writes the merged basket back; Tokyo now has {}", show(&tokyo, &to_client));
    Ok(())
}

/// How the times of the two writes compare if they are concurrent, and if Tokyo has read what Paris wrote.
fn lamport() -> (&'static str, &'static str) {
    let relation = |read: bool| {
        let (mut paris, mut tokyo) = (LamportClock::new(PARIS), LamportClock::new(TOKYO));
        tokyo.local();
        let first = paris.send();
        if read {
            tokyo.receive(first.time);
        }
        if first.time < tokyo.local().time { "Paris < Tokyo" } else { "Paris >= Tokyo" }
    };
    (relation(false), relation(true))
}

fn vector() -> Causality {
    let (mut paris, mut tokyo) = (VectorClock::new(PARIS), VectorClock::new(TOKYO));
    paris.local().compare(&tokyo.local())
}

fn version() -> Causality {
    let (mut paris, mut tokyo) = (VersionVector::new(), VersionVector::new());
    paris.record(PARIS);
    tokyo.record(TOKYO);
    paris.compare(&tokyo)
}

/// The two replicas after their writes. Tokyo's wall clock is a second behind.
fn baskets() -> Result<[MultiVersionRegister<Timed<Basket>>; 2], Box<dyn Error>> {
    let mut replicas = [MultiVersionRegister::new(), MultiVersionRegister::new()];
    let writes = [(PARIS, "tea", 9_000), (TOKYO, "milk", 8_000)];
    for (replica, (actor, item, wall_ms)) in replicas.iter_mut().zip(writes) {
        let mut clock = HybridClock::new(actor, Duration::from_secs(5))?;
        let time = clock.local(WallReading::from_unix(Duration::from_millis(wall_ms))?).time;
        replica.put(actor, &CausalContext::none(), Timed { time, value: Basket::from([item]) });
    }
    Ok(replicas)
}

fn union(a: &Timed<Basket>, b: &Timed<Basket>) -> Timed<Basket> {
    Timed { time: a.time.max(b.time), value: &a.value | &b.value }
}

fn show(replica: &MultiVersionRegister<Timed<Basket>>, resolver: &impl Resolver<Timed<Basket>>) -> String {
    match replica.resolve(resolver).answer {
        Answer::Absent => "nothing".to_owned(),
        Answer::Value(basket) => format!("{:?}", basket.value),
        Answer::Conflict(baskets) => {
            let baskets: Vec<String> = baskets.iter().map(|basket| format!("{:?}", basket.value)).collect();
            baskets.join(" and ")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lamport_time_says_the_same_of_concurrent_and_of_ordered_writes() {
        assert_eq!(lamport(), ("Paris < Tokyo", "Paris < Tokyo"));
    }

    #[test]
    fn the_vectors_find_the_conflict() {
        assert_eq!((vector(), version()), (Causality::Concurrent, Causality::Concurrent));
    }

    #[test]
    fn three_policies_resolve_it_in_three_ways_alike_on_both_replicas() {
        let [mut paris, mut tokyo] = baskets().unwrap();
        paris.merge(&tokyo);
        tokyo.merge(&paris);
        for replica in [&paris, &tokyo] {
            assert_eq!(show(replica, &ReturnToClient), r#"{"tea"} and {"milk"}"#);
            assert_eq!(show(replica, &LastWriterWins), r#"{"tea"}"#);
            assert_eq!(show(replica, &MergeWith(union)), r#"{"milk", "tea"}"#);
        }
    }
}
