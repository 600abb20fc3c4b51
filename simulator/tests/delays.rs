//! What a decided command costs, against formulas from the papers.
//!
//! With `n` replicas and one command at a time, the leader sends its command to `n - 1` others and each of them answers
//! once: phase 2 of Multi-Paxos (Lamport, *Paxos Made Simple*, section 3: "phase 2 ... cannot be improved"), one round of
//! AppendEntries (Ongaro, *Raft*, section 5.3), PROPOSE and ACK of Zab (Junqueira, Reed, Serafini, phase 3). What tells
//! followers that it is decided (a third message in Zab, a commit index in Raft) rides on the next command here. Flexible
//! Paxos (Howard, Malkhi, Spiegelman) waits for fewer answers and asks as many. Every replica records its vote before it
//! counts, so each command is `n` durable writes. A client at another replica adds its call to the leader and the answer.

use bytes::Bytes;
use synod_core::{
    ClientId, Command, Entries, Entry, Envelope, Forward, ForwardReply, GroupId, Incarnation, Kind, LogIndex,
    NodeId, Packet, Reign, RequestId, RequestOutcome, Sequence, Stamp, Wire,
};
use synod_multipaxos::{Accept, Accepted, Ballot, Message};
use synod_simulator::delays::{self, COMMAND_LEN, Case, Contender, Place, Row, SIZES};

/// Protocols in which a leader has phase 1 behind it.
const WITH_A_LEADER: [&str; 4] = ["raft", "multipaxos", "flexpaxos", "zab"];

fn normal_rows() -> Vec<Row> {
    let contenders: Vec<&Contender> =
        delays::CONTENDERS.iter().filter(|contender| WITH_A_LEADER.contains(&contender.protocol)).collect();
    assert_eq!(contenders.len(), WITH_A_LEADER.len());
    let rows = contenders.iter().flat_map(|contender| SIZES.map(|size| contender.rows(size).unwrap()));
    rows.flatten().filter(|row| row.case == Case::Normal).collect()
}

#[test]
fn a_command_at_the_leader_takes_two_delays_and_one_elsewhere_two_more() {
    for row in normal_rows() {
        let forwarding = if row.client_at == Place::Leader { 0 } else { 2 };
        assert_eq!(row.message_delays, 2 + forwarding, "{row:?}");
    }
}

#[test]
fn each_other_replica_is_asked_once_and_answers_once() {
    for row in normal_rows() {
        let forwarding = if row.client_at == Place::Leader { 0 } else { 2 };
        assert_eq!(row.messages, 2 * (row.replicas as u64 - 1) + forwarding, "{row:?}");
    }
}

#[test]
fn each_replica_writes_once() {
    for row in normal_rows() {
        assert_eq!(row.durable_writes, row.replicas as u64, "{row:?}");
    }
}

/// Lamport, *Fast Paxos*, section 3: a proposer sends its value to every acceptor, and each of them tells its vote to every
/// learner. The proposer's own vote rides on its next command.
#[test]
fn a_command_of_fast_paxos_takes_two_delays_from_anywhere_and_every_acceptor_tells_everybody() {
    let fast = delays::CONTENDERS.iter().find(|contender| contender.protocol == "fastpaxos").unwrap();
    for row in SIZES.into_iter().flat_map(|size| fast.rows(size).unwrap()) {
        let (n, others) = (row.replicas as u64, row.replicas as u64 - 1);
        let seen = (row.message_delays, row.messages, row.durable_writes);
        assert_eq!(seen, (2, others + others * others, n), "{row:?}");
    }
}

#[test]
fn bytes_grow_by_the_same_for_each_replica_and_forwarding_costs_the_same_everywhere() {
    let forwarded = envelope_len(vec![Packet::Forward(Forward {
        origin: NodeId(2),
        hops_left: 3,
        commands: vec![command()],
        queries: Vec::new(),
    })]);
    let reply = Bytes::from_static(&[0; REGISTERS_REPLY_LEN]);
    let outcome = (ClientId(1), Sequence(1), RequestOutcome::Applied(reply));
    let replied = envelope_len(vec![Packet::ForwardReply(ForwardReply {
        commands: vec![outcome],
        queries: Vec::new(),
    })]);
    let rows = normal_rows();
    for protocol in WITH_A_LEADER {
        let of = |place| rows.iter().filter(move |row| row.protocol == protocol && row.client_at == place);
        let pairs: Vec<u64> = of(Place::Leader).map(|row| row.bytes / (row.replicas as u64 - 1)).collect();
        assert!(of(Place::Leader).all(|row| row.bytes == pairs[0] * (row.replicas as u64 - 1)), "{protocol}");
        assert!(pairs[0] > COMMAND_LEN as u64, "{protocol}");
        for (leader, follower) in of(Place::Leader).zip(of(Place::Follower)) {
            assert_eq!(follower.bytes, leader.bytes + forwarded + replied, "{follower:?}");
        }
    }
}

#[test]
fn the_bytes_of_multi_paxos_are_an_accept_and_an_accepted_for_each_other_acceptor() {
    let Command { kind, request, payload } = command();
    let index = LogIndex(1);
    let entry = Entry { index, stamp: Stamp::default(), reign: Reign::default(), kind, request, payload };
    let ballot = Ballot { round: 1, node: NodeId(1) };
    let accept = Message::Accept(Accept {
        ballot,
        first: index,
        commit: LogIndex::ZERO,
        to_all: false,
        entries: Entries::new(vec![entry]).unwrap(),
    });
    let accepted = Message::Accepted(Accepted { ballot, through: index, decided: LogIndex::ZERO });
    let pair = envelope_len(vec![Packet::Protocol(accept)]) + envelope_len(vec![Packet::Protocol(accepted)]);
    let rows = normal_rows();
    for row in rows.iter().filter(|row| row.protocol == "multipaxos" && row.client_at == Place::Leader) {
        assert_eq!(row.bytes, pair * (row.replicas as u64 - 1), "{row:?}");
    }
}

/// Acceptors that answer all learners (*Paxos Made Simple*, section 2.3): call, accept, and then `(n - 1)` acceptors tell
/// `n - 1` others each; the leader's own answer comes as well, too late to matter.
#[test]
fn a_command_elsewhere_takes_three_delays_where_acceptors_answer_its_replica() {
    for protocol in ["multipaxos", "flexpaxos"] {
        let contender = delays::CONTENDERS.iter().find(|contender| contender.protocol == protocol).unwrap();
        for size in SIZES {
            let rows = contender.rows(size).unwrap();
            let direct: Vec<&Row> = rows.iter().filter(|row| row.case == Case::DirectReply).collect();
            let [row] = direct[..] else { panic!("{protocol} at {size}: {direct:?}") };
            let others = size as u64 - 1;
            assert_eq!((row.client_at, row.message_delays), (Place::Follower, 3), "{row:?}");
            assert_eq!(row.messages, 2 + others + others * others, "{row:?}");
            assert_eq!(row.durable_writes, size as u64, "{row:?}");
        }
    }
}

#[test]
fn every_contender_has_rows_and_the_same_ones_each_time() {
    let rows = delays::rows().unwrap();
    for contender in delays::CONTENDERS {
        for size in SIZES {
            let of_size = |row: &&Row| row.protocol == contender.protocol && row.replicas == size;
            assert!(rows.iter().any(|row| of_size(&row)), "{} at {size}", contender.protocol);
        }
    }
    assert_eq!(rows, delays::rows().unwrap());
}

/// The simulator's state machine answers with the operation and its place.
const REGISTERS_REPLY_LEN: usize = 16;

fn command() -> Command {
    let request = RequestId { client: ClientId(1), sequence: Sequence(1), first_incomplete: Sequence(1) };
    Command { kind: Kind::Command, request, payload: Bytes::from_static(&[0; COMMAND_LEN]) }
}

fn envelope_len(packets: Vec<Packet<Message>>) -> u64 {
    let envelope = Envelope {
        from: NodeId(1),
        from_incarnation: Incarnation(1),
        to_incarnation: Incarnation(1),
        group: GroupId(0),
        packets,
    };
    envelope.wire_len() as u64
}
