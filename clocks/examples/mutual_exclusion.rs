//! Lamport's mutual exclusion: one resource, no coordinator, a Lamport clock at every process.
//!
//! ```text
//!  P1 --request 1:P1--------------ack-->-------[ inside ]--release------------------->
//!             \                  ^                      \
//!              v                /                        v
//!  P2 ------request 1:P2 queued after 1:P1 -------------- first in the queue: [ inside ]
//! ```
//!
//! The five rules of *Time, Clocks, and the Ordering of Events in a Distributed System* (1978), section "Ordering the
//! Events Totally", and its conditions I to III, checked in every state that three processes can reach. The rules
//! need channels that keep the order of messages: without that, the search below finds two processes inside at once.
//!
//! `cargo run -p synod-clocks --example mutual_exclusion`

use std::collections::{BTreeSet, VecDeque};

use synod_clocks::{ActorId, LamportClock, LamportTime, Stamp};

/// A request as every queue orders it.
type Request = Stamp<LamportTime>;

/// What processes say. Every message carries the time it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Message {
    /// "I want the resource", with the stamp that decides who is first.
    Request(Request),
    /// "I know of your request."
    Acknowledge(Stamp<LamportTime>),
    /// "I have left."
    Release(Stamp<LamportTime>),
}

#[derive(Clone, Debug)]
struct Process {
    clock: LamportClock,
    /// Every request that is known and not released, in the order in which they will be granted.
    queue: BTreeSet<Request>,
    /// The time of the last message from each process.
    heard: Vec<LamportTime>,
    /// The own request, until it is released.
    own: Option<Request>,
    inside: bool,
    requests_left: u8,
}

/// All processes and what is on its way between them.
#[derive(Clone, Debug)]
struct World {
    processes: Vec<Process>,
    /// From, to.
    channels: Vec<Vec<VecDeque<Message>>>,
    /// The last request that was granted.
    granted: Option<Request>,
}

/// Something that can happen next.
#[derive(Clone, Copy, Debug)]
enum Step {
    Ask(usize),
    Enter(usize),
    Leave(usize),
    /// From, to, place in the channel.
    Deliver(usize, usize, usize),
}

/// Whether a channel keeps the order of its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Channels {
    Fifo,
    Unordered,
}

impl World {
    /// One process for each number: how often it will ask.
    fn new(requests: &[u8]) -> Self {
        let processes = requests.len();
        let process = |node: usize| Process {
            clock: LamportClock::new(ActorId::new(node as u32)),
            queue: BTreeSet::new(),
            heard: vec![LamportTime::default(); processes],
            own: None,
            inside: false,
            requests_left: requests[node],
        };
        Self {
            processes: (0..processes).map(process).collect(),
            channels: vec![vec![VecDeque::new(); processes]; processes],
            granted: None,
        }
    }

    /// Rule 1: stamp a request, queue it, send it to all others.
    fn ask(&mut self, i: usize) {
        let process = &mut self.processes[i];
        let request = process.clock.send();
        process.queue.insert(request);
        process.own = Some(request);
        process.requests_left -= 1;
        self.broadcast(i, Message::Request(request));
    }

    /// Rules 2 and 4: queue and acknowledge a request, forget a released one.
    fn deliver(&mut self, from: usize, to: usize, place: usize) {
        let message = self.channels[from][to].remove(place).expect("there is such a message");
        let process = &mut self.processes[to];
        let sent = message.stamp();
        process.clock.receive(sent.time);
        process.heard[from] = process.heard[from].max(sent.time);
        match message {
            Message::Request(request) => {
                process.queue.insert(request);
                let acknowledge = Message::Acknowledge(process.clock.send());
                self.channels[to][from].push_back(acknowledge);
            }
            Message::Acknowledge(_) => {}
            Message::Release(release) => process.queue.retain(|request| request.actor != release.actor),
        }
    }

    /// Rule 5: the own request is the first, and everybody was heard of since.
    fn may_enter(&self, i: usize) -> bool {
        let process = &self.processes[i];
        let Some(own) = process.own else { return false };
        let heard = process.heard.iter().enumerate().all(|(j, time)| j == i || *time > own.time);
        !process.inside && process.queue.first() == Some(&own) && heard
    }

    /// Rule 3: forget the own request and tell everybody.
    fn leave(&mut self, i: usize) {
        let process = &mut self.processes[i];
        let own = process.own.take().expect("a process inside has a request");
        process.queue.remove(&own);
        process.inside = false;
        let release = process.clock.send();
        self.broadcast(i, Message::Release(release));
    }

    fn broadcast(&mut self, i: usize, message: Message) {
        for j in (0..self.processes.len()).filter(|j| *j != i) {
            self.channels[i][j].push_back(message);
        }
    }

    fn steps(&self, channels: Channels) -> Vec<Step> {
        let mut steps = Vec::new();
        for (i, process) in self.processes.iter().enumerate() {
            if process.own.is_none() && process.requests_left > 0 {
                steps.push(Step::Ask(i));
            }
            if self.may_enter(i) {
                steps.push(Step::Enter(i));
            }
            if process.inside {
                steps.push(Step::Leave(i));
            }
            for (j, channel) in self.channels[i].iter().enumerate() {
                let deliverable =
                    if channels == Channels::Fifo { channel.len().min(1) } else { channel.len() };
                steps.extend((0..deliverable).map(|place| Step::Deliver(i, j, place)));
            }
        }
        steps
    }

    /// Takes a step; says which condition it broke.
    fn take(&mut self, step: Step) -> Result<(), &'static str> {
        match step {
            Step::Ask(i) => self.ask(i),
            Step::Leave(i) => self.leave(i),
            Step::Deliver(from, to, place) => self.deliver(from, to, place),
            Step::Enter(i) => {
                if self.processes.iter().any(|process| process.inside) {
                    return Err("condition I: one process at a time");
                }
                self.processes[i].inside = true;
                let before = self.granted.replace(self.processes[i].own.expect("it asked"));
                if before >= self.granted {
                    return Err("condition II: requests are granted in the order of their stamps");
                }
            }
        }
        Ok(())
    }

    /// Condition III, for a world in which nothing can happen any more.
    fn is_served(&self) -> bool {
        self.processes.iter().all(|process| process.own.is_none() && process.requests_left == 0)
    }

    /// Everything that tells this world from others, as numbers.
    fn key(&self) -> Vec<u64> {
        let stamp = |stamp: &Stamp<LamportTime>| stamp.time.get() << 8 | u64::from(stamp.actor.node());
        let mut key = vec![self.granted.as_ref().map_or(0, stamp)];
        for process in &self.processes {
            key.push(process.clock.now().time.get());
            key.push(u64::from(process.requests_left) << 1 | u64::from(process.inside));
            key.extend(process.queue.iter().map(stamp));
            key.push(u64::MAX);
            key.extend(process.heard.iter().map(|time| time.get()));
        }
        for channel in self.channels.iter().flatten() {
            key.push(u64::MAX);
            key.extend(channel.iter().map(|message| match message {
                Message::Request(at) => stamp(at) << 2,
                Message::Acknowledge(at) => stamp(at) << 2 | 1,
                Message::Release(at) => stamp(at) << 2 | 2,
            }));
        }
        key
    }
}

impl Message {
    fn stamp(self) -> Stamp<LamportTime> {
        match self {
            Message::Request(stamp) | Message::Acknowledge(stamp) | Message::Release(stamp) => stamp,
        }
    }
}

/// What an exhaustive search saw.
#[derive(Debug, Default)]
struct Explored {
    states: usize,
    /// States in which nothing can happen any more.
    ends: usize,
    /// The most messages that one channel ever held.
    longest_channel: usize,
}

/// Takes every step in every state that can be reached; the first broken condition ends it.
fn explore(start: World, channels: Channels) -> Result<Explored, &'static str> {
    let mut seen = BTreeSet::from([start.key()]);
    let mut open = vec![start];
    let mut explored = Explored::default();
    while let Some(world) = open.pop() {
        explored.states += 1;
        let longest = world.channels.iter().flatten().map(VecDeque::len).max();
        explored.longest_channel = explored.longest_channel.max(longest.unwrap_or(0));
        let steps = world.steps(channels);
        if steps.is_empty() {
            explored.ends += 1;
            if !world.is_served() {
                return Err("condition III: every request is granted if whoever is inside leaves");
            }
        }
        for step in steps {
            let mut next = world.clone();
            next.take(step)?;
            if seen.insert(next.key()) {
                open.push(next);
            }
        }
    }
    Ok(explored)
}

fn main() {
    for requests in [&[1, 1][..], &[2, 2], &[1, 1, 0], &[1, 1, 1]] {
        for channels in [Channels::Fifo, Channels::Unordered] {
            let found = explore(World::new(requests), channels);
            println!("processes that ask {requests:?} times, {channels:?} channels: {found:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_processes_keep_the_three_conditions_in_every_state() {
        let explored = explore(World::new(&[2, 2]), Channels::Fifo).unwrap();
        assert!(explored.states > 1_000 && explored.ends > 0, "{explored:?}");
    }

    #[test]
    fn three_processes_keep_the_three_conditions_in_every_state() {
        let explored = explore(World::new(&[1, 1, 0]), Channels::Fifo).unwrap();
        assert!(explored.states > 1_000 && explored.ends > 0, "{explored:?}");
    }

    #[test]
    fn without_fifo_channels_two_processes_are_inside_at_once() {
        assert_eq!(
            explore(World::new(&[2, 2]), Channels::Unordered).unwrap_err(),
            "condition I: one process at a time"
        );
    }
}
