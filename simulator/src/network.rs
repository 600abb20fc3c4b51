//! The network between the nodes: what becomes of one envelope.

use crate::clock::{MICROSECOND, MILLISECOND, Time};
use crate::fault::{Fault, FaultCounts};
use crate::rng::{Chance, Rng};

/// How the network behaves where no fault cuts it.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// The shortest way.
    pub delay_min: Time,
    /// What comes on top, on average.
    pub delay_mean: Time,
    /// A message is lost.
    pub loss: Chance,
    /// A message is delivered again, soon.
    pub duplicate: Chance,
    /// A message is delivered again, much later: in another term, to another life.
    pub replay: Chance,
    /// How much later at most.
    pub replay_delay_max: Time,
    /// True: messages overtake each other.
    pub reorder: bool,
    /// A message takes a hundred times as long. Only with `reorder`.
    pub tail: Chance,
}

impl Weather {
    /// Fast, in order, and without loss.
    #[must_use]
    pub fn fair() -> Weather {
        Weather {
            delay_min: 50 * MICROSECOND,
            delay_mean: 50 * MICROSECOND,
            loss: Chance::NEVER,
            duplicate: Chance::NEVER,
            replay: Chance::NEVER,
            replay_delay_max: 0,
            reorder: false,
            tail: Chance::NEVER,
        }
    }
}

/// The links between all ordered pairs of nodes.
#[derive(Debug)]
pub struct Network {
    nodes: usize,
    links: Vec<Link>,
    cuts: Vec<Cut>,
    /// How it behaves now.
    pub weather: Weather,
    replays: u32,
}

/// Names a fault of the network while it lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CutId(u32);

/// What becomes of an envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It never arrives, because of this.
    Lost(Fault),
    /// It arrives then, and perhaps again.
    Arrives {
        /// When.
        at: Time,
        /// When its copy does.
        again: Option<Time>,
    },
}

#[derive(Clone, Debug, Default)]
struct Link {
    /// The cuts that stop it; it carries if there is none.
    cut_by: Vec<u32>,
    clogged_until: Time,
    held: u32,
    last_arrival: Time,
}

#[derive(Clone, Copy, Debug)]
struct Cut {
    kind: Fault,
    noticed: bool,
}

impl Network {
    /// Messages that a clogged link holds before it drops more.
    const HELD_MAX: u32 = 256;
    /// Late copies that wait at a time.
    const REPLAYS_MAX: u32 = 64;

    /// A network of so many nodes.
    #[must_use]
    pub fn new(nodes: usize, weather: Weather) -> Network {
        Network { nodes, links: vec![Link::default(); nodes * nodes], cuts: Vec::new(), weather, replays: 0 }
    }

    /// Decides what becomes of an envelope that leaves now.
    pub fn send(
        &mut self,
        from: usize,
        to: usize,
        now: Time,
        rng: &mut Rng,
        counts: &mut FaultCounts,
    ) -> Fate {
        let weather = self.weather;
        let link = &mut self.links[from * self.nodes + to];
        if let Some(cut) = link.cut_by.first() {
            let cut = &mut self.cuts[*cut as usize];
            if !cut.noticed {
                cut.noticed = true;
                counts[cut.kind] += 1;
            }
            return Fate::Lost(cut.kind);
        }
        if rng.chance(weather.loss) {
            counts[Fault::Loss] += 1;
            return Fate::Lost(Fault::Loss);
        }
        let mut delay = weather.delay_min + rng.exponential(weather.delay_mean);
        if weather.reorder && rng.chance(weather.tail) {
            delay *= 100;
        }
        let mut at = now + delay;
        if link.clogged_until > at {
            link.held += 1;
            if link.held > Network::HELD_MAX {
                return Fate::Lost(Fault::Clog);
            }
            if link.held == 1 {
                counts[Fault::Clog] += 1;
            }
            at = link.clogged_until + rng.below(200 * MICROSECOND);
        }
        if weather.reorder {
            if at < link.last_arrival {
                counts[Fault::Reorder] += 1;
            }
        } else {
            at = at.max(link.last_arrival);
        }
        link.last_arrival = link.last_arrival.max(at);
        let again = if rng.chance(weather.duplicate) {
            Some(at + rng.exponential(weather.delay_mean * 4))
        } else if self.replays < Network::REPLAYS_MAX && rng.chance(weather.replay) {
            self.replays += 1;
            Some(at + rng.log_between(10 * MILLISECOND, weather.replay_delay_max))
        } else {
            None
        };
        if again.is_some() {
            counts[Fault::Duplicate] += 1;
        }
        Fate::Arrives { at, again }
    }

    /// Cuts these links, from and to, until [`Network::mend`].
    pub fn cut(&mut self, kind: Fault, links: impl IntoIterator<Item = (usize, usize)>) -> CutId {
        let id = self.cuts.len() as u32;
        self.cuts.push(Cut { kind, noticed: false });
        for (from, to) in links {
            self.links[from * self.nodes + to].cut_by.push(id);
        }
        CutId(id)
    }

    /// Mends what [`Network::cut`] cut.
    pub fn mend(&mut self, CutId(id): CutId) {
        for link in &mut self.links {
            link.cut_by.retain(|cut| *cut != id);
        }
    }

    /// The link holds its messages back until then.
    pub fn clog(&mut self, from: usize, to: usize, until: Time) {
        let link = &mut self.links[from * self.nodes + to];
        link.clogged_until = until;
        link.held = 0;
    }

    /// Mends every cut and opens every clog. What is under way stays so.
    pub fn heal(&mut self) {
        for link in &mut self.links {
            link.cut_by.clear();
            link.clogged_until = 0;
            link.last_arrival = 0;
        }
    }

    /// True if nothing stops messages of this link for good.
    #[must_use]
    pub fn carries(&self, from: usize, to: usize) -> bool {
        self.links[from * self.nodes + to].cut_by.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_is_counted_once_and_only_when_it_costs_a_message() {
        let (mut rng, mut counts) = (Rng::new(1), FaultCounts::default());
        let mut network = Network::new(3, Weather::fair());
        let idle = network.cut(Fault::Partition, [(0, 1)]);
        network.mend(idle);
        let cut = network.cut(Fault::OneWay, [(0, 1)]);
        for _ in 0..3 {
            assert_eq!(network.send(0, 1, 0, &mut rng, &mut counts), Fate::Lost(Fault::OneWay));
            assert!(matches!(network.send(1, 0, 0, &mut rng, &mut counts), Fate::Arrives { .. }));
        }
        assert_eq!((counts[Fault::OneWay], counts[Fault::Partition]), (1, 0));
        network.mend(cut);
        assert!(matches!(network.send(0, 1, 0, &mut rng, &mut counts), Fate::Arrives { .. }));
    }

    #[test]
    fn order_is_kept_unless_messages_may_overtake_each_other() {
        let (mut rng, mut counts) = (Rng::new(1), FaultCounts::default());
        let mut network = Network::new(2, Weather::fair());
        let mut arrivals = |network: &mut Network, counts: &mut FaultCounts| -> Vec<Time> {
            (0..200u64)
                .map(|sent| match network.send(0, 1, sent, &mut rng, counts) {
                    Fate::Arrives { at, .. } => at,
                    Fate::Lost(_) => unreachable!("nothing is lost in fair weather"),
                })
                .collect()
        };
        assert!(arrivals(&mut network, &mut counts).is_sorted());
        assert_eq!(counts[Fault::Reorder], 0);
        network.weather.reorder = true;
        assert!(!arrivals(&mut network, &mut counts).is_sorted());
        assert!(counts[Fault::Reorder] > 0);
    }

    #[test]
    fn a_clog_holds_messages_and_then_lets_them_go() {
        let (mut rng, mut counts) = (Rng::new(1), FaultCounts::default());
        let mut network = Network::new(2, Weather::fair());
        network.clog(0, 1, 90 * MILLISECOND);
        let fates: Vec<Fate> = (0..300).map(|_| network.send(0, 1, 0, &mut rng, &mut counts)).collect();
        let held =
            fates.iter().filter(|fate| matches!(fate, Fate::Arrives { at, .. } if *at >= 90 * MILLISECOND));
        assert_eq!((held.count(), counts[Fault::Clog]), (256, 1));
    }
}
