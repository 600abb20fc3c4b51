//! Machines that break one rule each, by hand: the observer must name it. What a whole protocol would take
//! hours to get wrong is done here in one step.

use bytes::Bytes;
use synod_core::{
    Effects, Entries, Entry, Input, Instant, Kind, LogCall, LogEvent, LogIndex, Machine, Membership, NodeId,
    OpenError, Protocol, Recovered, Reign, RequestId, Role, Route, Stamp, Start, Status, WriteId,
};
use synod_raft::{
    Append, Appended, Heartbeat, Message, Position, PreVoteReply, Round, Term, Vote, VoteReply,
};
use synod_simulator::observer::terms::{Claim, HardState, TermLedger, Terms};
use synod_simulator::observer::{Checked, LogObserver};
use synod_simulator::raft::RaftAdapter;
use synod_simulator::rare::Rare;

/// A machine whose status is whatever a test says, and which writes whatever a test writes.
#[derive(Clone, Debug)]
struct Puppet {
    status: Status,
}

impl Machine for Puppet {
    type Config = ();
    type Message = Message;
    type Call = LogCall;
    type Event = LogEvent;

    fn open(_: Start<()>) -> Result<Puppet, OpenError> {
        unreachable!("puppets are made by hand")
    }

    fn step(&mut self, _: Instant, _: Input<Message, LogCall>, _: &mut Effects<Message, LogEvent>) {}

    fn next_deadline(&self) -> Option<Instant> {
        None
    }
}

impl Protocol for Puppet {
    fn route(&self) -> Route {
        Route::Hold
    }

    fn status(&self) -> Status {
        self.status.clone()
    }
}

struct PuppetTerms;

impl Terms for PuppetTerms {
    type Protocol = Puppet;

    fn hard_state(bytes: &Bytes) -> Result<HardState, String> {
        match bytes.as_ref() {
            [term, 0] => Ok(HardState { term: (*term).into(), vote: None }),
            [term, vote] => Ok(HardState { term: (*term).into(), vote: Some(usize::from(*vote) - 1) }),
            _ => Err("two bytes".to_owned()),
        }
    }

    fn claims(message: &Message, claim: &mut dyn FnMut(Claim) -> Checked) -> Checked {
        <RaftAdapter as Terms>::claims(message, claim)
    }

    fn rare(_: &Message) -> Option<Rare> {
        None
    }
}

/// Three puppets, their effects, and the observer.
struct Stage {
    ledger: TermLedger<PuppetTerms>,
    nodes: Vec<(Puppet, Effects<Message, LogEvent>)>,
}

impl Stage {
    fn new() -> Stage {
        let membership = Membership::of_ids([1, 2, 3]).unwrap();
        let mut ledger = TermLedger::new(&membership);
        let puppet = Puppet {
            status: Status {
                role: Role::Follower,
                leader: None,
                reign: Reign::default(),
                decided: LogIndex::ZERO,
                membership: membership.into(),
            },
        };
        for node in 0..3 {
            ledger.opened(node, &Recovered::default(), &puppet).unwrap();
        }
        Stage { ledger, nodes: (0..3).map(|_| (puppet.clone(), Effects::new())).collect() }
    }

    /// The node takes a step in which its term, role and decided index become these and it writes this.
    fn step<R>(
        &mut self,
        node: usize,
        (role, term, decided): (Role, u64, u64),
        write: impl FnOnce(&mut Effects<Message, LogEvent>) -> R,
    ) -> Checked {
        let (puppet, effects) = &mut self.nodes[node];
        puppet.status.role = role;
        puppet.status.reign.number = term;
        puppet.status.decided = LogIndex(decided);
        write(effects);
        self.ledger.stepped(node, puppet, effects)
    }

    /// Everything the node wrote is durable.
    fn sync(&mut self, node: usize) {
        if let Some(unit) = self.nodes[node].1.settle() {
            let last = LogIndex(self.ledger.last_index(node));
            self.ledger.durable(node, unit.id, last).unwrap();
        }
    }

    /// Node 0 leads term 1 and has decided entries 1 to 3 with node 1; node 2 knows nothing.
    fn settled() -> Stage {
        let mut stage = Stage::new();
        stage.step(0, (Role::Leader, 1, 0), |to| write(to, 1, 1, &[1, 1, 1])).unwrap();
        stage.step(1, (Role::Follower, 1, 0), |to| write(to, 1, 0, &[1, 1, 1])).unwrap();
        stage.sync(0);
        stage.sync(1);
        stage.step(0, (Role::Leader, 1, 3), |_| {}).unwrap();
        stage
    }

    fn sent(&mut self, node: usize, to: usize, message: Message) -> Checked {
        self.ledger.sent(node, to, &message)
    }
}

/// Hard state (term, vote) and entries of these terms from index 1.
fn write(effects: &mut Effects<Message, LogEvent>, term: u8, vote: u8, terms: &[u64]) {
    effects.set_hard_state(Bytes::copy_from_slice(&[term, vote]));
    effects.put(entries(1, terms));
}

fn entries(first: u64, terms: &[u64]) -> Entries {
    Entries::numbered(LogIndex(first), terms.to_vec(), |index, term| Entry {
        index,
        stamp: Stamp { high: term, low: 0 },
        reign: Reign { number: term, leader: NodeId(1) },
        kind: Kind::Command,
        request: RequestId::NONE,
        payload: Bytes::new(),
    })
}

fn broken(checked: Checked) -> &'static str {
    checked.expect_err("a rule was broken").invariant
}

#[test]
fn what_is_right_passes() {
    let mut stage = Stage::settled();
    assert_eq!(stage.ledger.decisions().through(), 3);
    stage.step(1, (Role::Follower, 1, 3), |_| {}).unwrap();
    stage.sent(1, 0, Message::Appended(Appended { term: Term(1), through: LogIndex(3) })).unwrap();
    stage.step(2, (Role::Follower, 1, 2), |to| write(to, 1, 0, &[1, 1])).unwrap();
}

#[test]
fn two_leaders_in_one_term_break_election_safety() {
    let mut stage = Stage::settled();
    assert_eq!(broken(stage.step(2, (Role::Leader, 1, 0), |_| {})), "RI1");
}

#[test]
fn a_leader_that_removes_or_overwrites_is_not_append_only() {
    let truncate = |to: &mut Effects<Message, LogEvent>| to.truncate_from(LogIndex(3));
    assert_eq!(broken(Stage::settled().step(0, (Role::Leader, 1, 3), truncate)), "RI2");
    let overwrite = |to: &mut Effects<Message, LogEvent>| to.put(entries(3, &[1]));
    assert_eq!(broken(Stage::settled().step(0, (Role::Leader, 1, 3), overwrite)), "RI2");
}

#[test]
fn an_entry_that_its_leader_did_not_make_is_caught() {
    let mut stage = Stage::settled();
    assert_eq!(broken(stage.step(2, (Role::Follower, 1, 0), |to| write(to, 1, 0, &[1, 1, 1, 1]))), "RI2");
}

#[test]
fn one_index_and_term_on_two_histories_break_log_matching() {
    let mut stage = Stage::new();
    stage.step(0, (Role::Leader, 1, 0), |to| write(to, 1, 1, &[1, 1])).unwrap();
    stage.step(2, (Role::Leader, 2, 0), |to| write(to, 2, 3, &[2, 2, 2])).unwrap();
    let mixed = |to: &mut Effects<Message, LogEvent>| write(to, 2, 0, &[1, 1, 2]);
    assert_eq!(broken(stage.step(1, (Role::Follower, 2, 0), mixed)), "RI3");
    let hole = |to: &mut Effects<Message, LogEvent>| to.put(entries(3, &[2]));
    let mut stage = Stage::new();
    stage.step(2, (Role::Leader, 2, 0), |to| write(to, 2, 3, &[2, 2, 2])).unwrap();
    assert_eq!(broken(stage.step(1, (Role::Follower, 2, 0), hole)), "RI3");
}

#[test]
fn a_leader_without_what_was_decided_is_incomplete() {
    let mut stage = Stage::settled();
    assert_eq!(broken(stage.step(2, (Role::Leader, 2, 0), |_| {})), "RI4");
}

#[test]
fn a_node_that_believes_another_history_decided_breaks_state_machine_safety() {
    let mut stage = Stage::new();
    stage.step(2, (Role::Leader, 1, 0), |to| write(to, 1, 3, &[1])).unwrap();
    stage.step(0, (Role::Leader, 2, 0), |to| write(to, 2, 1, &[2])).unwrap();
    stage.step(1, (Role::Follower, 2, 0), |to| write(to, 2, 0, &[2])).unwrap();
    stage.sync(0);
    stage.sync(1);
    assert_eq!(broken(stage.step(2, (Role::Follower, 2, 1), |_| {})), "RI5");
}

#[test]
fn a_term_that_falls_and_a_vote_that_changes_are_caught() {
    let state = |bytes: [u8; 2]| {
        move |to: &mut Effects<Message, LogEvent>| to.set_hard_state(Bytes::copy_from_slice(&bytes))
    };
    let mut stage = Stage::settled();
    assert_eq!(broken(stage.step(0, (Role::Follower, 0, 3), |_| {})), "RI6");
    let mut stage = Stage::new();
    stage.step(0, (Role::Follower, 4, 0), state([4, 2])).unwrap();
    assert_eq!(broken(stage.step(0, (Role::Follower, 4, 0), state([4, 3]))), "RI6");
    let mut stage = Stage::new();
    stage.step(0, (Role::Follower, 4, 0), state([4, 0])).unwrap();
    assert_eq!(broken(stage.step(0, (Role::Follower, 4, 0), state([3, 0]))), "RI6");
}

#[test]
fn what_no_quorum_holds_durably_is_not_decided() {
    let mut stage = Stage::new();
    stage.step(0, (Role::Leader, 1, 0), |to| write(to, 1, 1, &[1])).unwrap();
    stage.step(1, (Role::Follower, 1, 0), |to| write(to, 1, 0, &[1])).unwrap();
    stage.sync(1);
    assert_eq!(broken(stage.step(0, (Role::Leader, 1, 1), |_| {})), "RI7", "its own write is under way");
    let mut stage = Stage::settled();
    assert_eq!(broken(stage.step(0, (Role::Leader, 1, 2), |_| {})), "RI7", "decided went back");
    let told = Message::Heartbeat(Heartbeat { term: Term(1), commit: LogIndex(4), round: Round(1) });
    assert_eq!(broken(Stage::settled().sent(0, 1, told)), "RI7");
}

#[test]
fn an_entry_of_an_earlier_term_is_not_decided_by_counting_it() {
    // Figure 8: entry 1 of term 1 reaches a quorum only in term 3, and by itself that decides nothing.
    let mut stage = Stage::new();
    stage.step(0, (Role::Leader, 1, 0), |to| write(to, 1, 1, &[1])).unwrap();
    stage.sync(0);
    let term_3 = |to: &mut Effects<Message, LogEvent>| to.set_hard_state(Bytes::copy_from_slice(&[3, 1]));
    stage.step(0, (Role::Leader, 3, 0), term_3).unwrap();
    stage.step(1, (Role::Follower, 3, 0), |to| write(to, 3, 0, &[1])).unwrap();
    stage.sync(0);
    stage.sync(1);
    assert_eq!(stage.ledger.decisions().through(), 0);
    // An entry of term 3 above it decides both.
    stage.step(0, (Role::Leader, 3, 0), |to| to.put(entries(2, &[3]))).unwrap();
    stage.step(1, (Role::Follower, 3, 0), |to| to.put(entries(2, &[3]))).unwrap();
    stage.sync(0);
    assert_eq!(broken(stage.step(0, (Role::Leader, 3, 1), |_| {})), "RI7");
    stage.sync(1);
    assert_eq!(stage.ledger.decisions().through(), 2);
}

#[test]
fn nothing_is_decided_that_is_not_there() {
    let mut stage = Stage::settled();
    assert_eq!(broken(stage.step(2, (Role::Follower, 1, 1), |_| {})), "RI8");
}

#[test]
fn what_a_message_reveals_must_be_durable() {
    let accepted = |through| Message::Appended(Appended { term: Term(1), through: LogIndex(through) });
    let mut stage = Stage::settled();
    stage.step(2, (Role::Follower, 1, 0), |to| write(to, 1, 0, &[1, 1])).unwrap();
    assert_eq!(broken(stage.sent(2, 0, accepted(2))), "RI9");
    stage.sync(2);
    stage.sent(2, 0, accepted(2)).unwrap();
    assert_eq!(broken(stage.sent(2, 0, accepted(3))), "RI9");

    let vote = Message::VoteReply(VoteReply { term: Term(5), granted: true });
    let mut stage = Stage::new();
    let voted = |to: &mut Effects<Message, LogEvent>| to.set_hard_state(Bytes::copy_from_slice(&[5, 2]));
    stage.step(0, (Role::Follower, 5, 0), voted).unwrap();
    assert_eq!(broken(stage.sent(0, 1, vote.clone())), "RI9");
    stage.sync(0);
    stage.sent(0, 1, vote.clone()).unwrap();
    assert_eq!(broken(stage.sent(0, 2, vote)), "RI6", "a second vote in one term");

    let append = Message::Append(Append {
        term: Term(5),
        prev: Position::ZERO,
        commit: LogIndex::ZERO,
        entries: Entries::empty(),
    });
    assert_eq!(broken(stage.sent(0, 1, append)), "RI9", "it leads a term in which it voted for another");
}

#[test]
fn nobody_campaigns_without_the_support_of_a_quorum() {
    let ask = Message::Vote(Vote { term: Term(1), last: Position::ZERO, transfer: false });
    let mut stage = Stage::new();
    let voted = |to: &mut Effects<Message, LogEvent>| to.set_hard_state(Bytes::copy_from_slice(&[1, 1]));
    stage.step(0, (Role::Candidate, 1, 0), voted).unwrap();
    stage.sync(0);
    assert_eq!(broken(stage.sent(0, 1, ask.clone())), "PV");
    let granted = PreVoteReply { term: Term(0), asked: Term(1), granted: true };
    stage.sent(2, 0, Message::PreVoteReply(granted)).unwrap();
    stage.sent(0, 1, ask).unwrap();
}

#[test]
fn a_restart_that_finds_something_else_than_what_survived_is_caught() {
    let mut stage = Stage::settled();
    let puppet = stage.nodes[1].0.clone();
    stage.ledger.crashed(1, WriteId(1), LogIndex(3)).unwrap();
    assert_eq!(broken(stage.ledger.opened(1, &Recovered::default(), &puppet)), "ST1");
}
