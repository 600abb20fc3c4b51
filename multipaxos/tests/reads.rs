//! What confirms a read, and what does not.

mod harness;

use std::time::Duration;

use harness::{Cluster, TIMEOUT, ballot};
use synod_core::{LogEvent, LogIndex, ReadId};
use synod_multipaxos::{HeartbeatReply, Message, Prepare, Rejected, Round};

fn is_ready(cluster: &mut Cluster) -> bool {
    let events = cluster.take_events(1);
    events.iter().any(|event| matches!(event, LogEvent::ReadReady { id: ReadId(7), .. }))
}

/// The round of the last heartbeat that replica 1 sent.
fn last_round(cluster: &mut Cluster) -> Round {
    let round = |message: &Message| match message {
        Message::Heartbeat(heartbeat) => Some(heartbeat.round),
        _ => None,
    };
    cluster.take_sent().iter().filter_map(|letter| round(&letter.message)).max().expect("a round began")
}

#[test]
fn who_promised_a_higher_ballot_confirms_no_round_of_a_lower_one() {
    let mut cluster = Cluster::led_by_one(3);
    cluster.scripted = true;
    cluster.receive(3, 2, Message::Prepare(Prepare { ballot: ballot(9, 3), from: LogIndex(1) }));
    cluster.persist(2);
    cluster.read(1, 7);
    cluster.take_sent();
    for letter in cluster.take(|letter| letter.to == 2) {
        cluster.deliver(letter);
    }
    let sent = cluster.take_sent();
    assert!(sent.iter().any(|letter| matches!(letter.message, Message::Rejected(_))));
    assert!(!sent.iter().any(|letter| matches!(letter.message, Message::HeartbeatReply(_))));
}

#[test]
fn a_late_reply_to_an_earlier_ballot_of_the_same_leader_confirms_nothing() {
    let mut cluster = Cluster::led_by_one(3);
    let earlier = cluster.promised(1);
    let rejected = Rejected { ballot: earlier, promised: ballot(earlier.round + 1, 3) };
    cluster.receive(2, 1, Message::Rejected(rejected));
    cluster.now += 2 * TIMEOUT;
    cluster.elect(1);
    let (mine, _) = (cluster.promised(1), cluster.take_events(1));
    assert!(mine > earlier);
    cluster.read(1, 7);
    let round = last_round(&mut cluster);
    let reply = |ballot| Message::HeartbeatReply(HeartbeatReply { ballot, round, loyal_for: Duration::ZERO });
    cluster.receive(2, 1, reply(earlier));
    assert!(!is_ready(&mut cluster));
    cluster.receive(2, 1, reply(mine));
    assert!(is_ready(&mut cluster));
}
