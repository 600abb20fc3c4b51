//! What happened, kept for people: only when a single seed is replayed.

use std::collections::BTreeMap;

use synod_clocks::{ActorId, VectorClock, VectorTime};

use crate::clock::Time;

/// A run, event by event.
#[derive(Debug, Default)]
pub struct Trace {
    /// In order of time.
    pub items: Vec<Item>,
}

/// One thing that happened.
#[derive(Clone, Debug)]
pub struct Item {
    /// When.
    pub at: Time,
    /// The number of events before it.
    pub step: u64,
    /// What.
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum What {
    /// A message, from the moment it left; `lost` tells why it never arrived.
    Message {
        /// The sender.
        from: usize,
        /// The receiver.
        to: usize,
        /// Its number: deliveries refer to it.
        id: u64,
        /// One line.
        text: String,
        /// Why it was lost.
        lost: Option<&'static str>,
    },
    /// A message arrived.
    Delivered {
        /// Its number.
        id: u64,
        /// Where.
        to: usize,
        /// False: nobody was there.
        taken: bool,
    },
    /// A node did or suffered something.
    Node {
        /// Which.
        node: usize,
        /// What kind of thing: the name of its colour in a diagram.
        kind: Kind,
        /// One line.
        text: String,
    },
    /// Links stopped carrying.
    Cut {
        /// Why.
        kind: &'static str,
        /// From and to.
        links: Vec<(usize, usize)>,
        /// Until when.
        until: Time,
    },
    /// Something happened to all, or to nobody in particular.
    World {
        /// One line.
        text: String,
    },
}

/// What kind of thing happened to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Its life began.
    Start,
    /// Its life ended.
    Crash,
    /// It stands still.
    Pause,
    /// It goes on.
    Resume,
    /// A unit went to its disk.
    Write,
    /// Units became durable.
    Durable,
    /// Its role or reign changed.
    Role,
    /// It knows of more decided entries.
    Decided,
    /// A client asked.
    Call,
    /// A client was answered.
    Answer,
    /// A timer fired.
    Tick,
    /// A read of the storage.
    Load,
    /// A fault of another kind.
    Fault,
}

impl Kind {
    /// A word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::Start => "start",
            Kind::Crash => "crash",
            Kind::Pause => "pause",
            Kind::Resume => "resume",
            Kind::Write => "write",
            Kind::Durable => "durable",
            Kind::Role => "role",
            Kind::Decided => "decided",
            Kind::Call => "call",
            Kind::Answer => "answer",
            Kind::Tick => "tick",
            Kind::Load => "load",
            Kind::Fault => "fault",
        }
    }
}

impl Trace {
    /// Adds something that happened.
    pub fn push(&mut self, at: Time, step: u64, what: What) {
        self.items.push(Item { at, step, what });
    }

    /// What had happened before each item: its vector time, if it is something that happened at a node.
    ///
    /// The line of a node is one actor through all of its lives: what was durable carries over.
    #[must_use]
    pub fn vector_times(&self, nodes: usize) -> Vec<Option<VectorTime>> {
        let mut clocks: Vec<VectorClock> =
            (0..nodes).map(|node| VectorClock::new(ActorId::new(node as u32))).collect();
        let mut sent: BTreeMap<u64, VectorTime> = BTreeMap::new();
        let happened = self.items.iter().map(|item| match &item.what {
            What::Message { from, id, .. } => {
                let time = clocks[*from].send();
                sent.insert(*id, time.clone());
                Some(time)
            }
            What::Delivered { id, to, taken: true } => Some(clocks[*to].receive(sent.get(id)?)),
            What::Node { node, .. } => Some(clocks[*node].local()),
            What::Delivered { taken: false, .. } | What::Cut { .. } | What::World { .. } => None,
        });
        happened.collect()
    }

    /// The trace as lines.
    pub fn lines(&self) -> impl Iterator<Item = String> + '_ {
        self.items.iter().map(|item| {
            let time = format!("{:>12.6} {:>7}", item.at as f64 / 1e9, item.step);
            match &item.what {
                What::Message { from, to, id, text, lost: None } => {
                    format!("{time} n{} -> n{} #{id} {text}", from + 1, to + 1)
                }
                What::Message { from, to, id, text, lost: Some(why) } => {
                    format!("{time} n{} -x n{} #{id} {text} ({why})", from + 1, to + 1)
                }
                What::Delivered { id, to, taken: true } => format!("{time} n{} <- #{id}", to + 1),
                What::Delivered { id, to, taken: false } => {
                    format!("{time} n{} x- #{id} (nobody there)", to + 1)
                }
                What::Node { node, kind, text } => format!("{time} n{} {} {text}", node + 1, kind.name()),
                What::Cut { kind, links, until } => {
                    let links: Vec<String> =
                        links.iter().map(|(from, to)| format!("n{}-x-n{}", from + 1, to + 1)).collect();
                    format!("{time} {kind}: {} until {:.6}", links.join(" "), *until as f64 / 1e9)
                }
                What::World { text } => format!("{time} {text}"),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use synod_clocks::Causality;

    use super::*;

    #[test]
    fn a_delivery_happened_after_its_message_and_beside_what_it_has_not_heard_of() {
        let mut trace = Trace::default();
        let local = |node| What::Node { node, kind: Kind::Tick, text: String::new() };
        trace.push(1, 0, What::Message { from: 0, to: 1, id: 7, text: String::new(), lost: None });
        trace.push(2, 1, local(0));
        trace.push(2, 2, local(1));
        trace.push(3, 3, What::Delivered { id: 7, to: 1, taken: true });
        trace.push(4, 4, What::Delivered { id: 7, to: 1, taken: false });
        let times = trace.vector_times(2);
        let compare = |a: usize, b: usize| times[a].as_ref().unwrap().compare(times[b].as_ref().unwrap());
        assert_eq!(compare(0, 3), Causality::Before);
        assert_eq!(compare(2, 3), Causality::Before);
        assert_eq!(compare(1, 3), Causality::Concurrent);
        assert_eq!(times[4], None);
    }
}
