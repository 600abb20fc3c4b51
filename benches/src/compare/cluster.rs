//! The replicas of one run: started, crashed, restarted, compared.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use synod_core::memory::MemorySnapshots;
use synod_core::{Membership, NodeId, Reign};
use synod_runtime::{Consistency, Node};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

use crate::contenders::{Contender, Life, LifeError, Network};
use crate::logs::Logs;
use crate::options::{StorageKind, TransportKind};
use crate::state_machine::{Replicated, STATE_QUERY, State};

/// Replicas `1..=n` in this process. Where they are found is told by [`Seats`].
pub struct Cluster {
    network: Box<dyn Network>,
    logs: Logs,
    snapshot_entries: Option<u64>,
    membership: Membership,
    state_machine: fn() -> Replicated,
    replicas: Vec<Replica>,
    seats: Seats,
}

struct Replica {
    id: NodeId,
    /// What a node leaves to its next life, beside its log.
    snapshots: MemorySnapshots,
    /// Handles of every life so far: counters outlive the node. The last one runs, unless it was crashed.
    lives: Vec<Node>,
}

/// What carries messages, and what holds logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Surroundings {
    /// Between the replicas.
    pub transport: TransportKind,
    /// Of each replica.
    pub storage: StorageKind,
    /// After how many entries each takes a snapshot, kept in memory, and cuts its log off; none, and the log grows.
    pub snapshot_entries: Option<u64>,
}

/// What all replicas have sent and written, over all their lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Envelopes sent.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Syncs of logs on disk.
    pub syncs: u64,
    /// Snapshots taken.
    pub snapshots: u64,
}

impl Cluster {
    /// Starts `replicas` nodes with empty logs.
    ///
    /// # Errors
    /// [`LifeError`] of the first that did not start.
    pub async fn start(
        contender: &dyn Contender,
        surroundings: Surroundings,
        replicas: u64,
        state_machine: fn() -> Replicated,
    ) -> Result<Cluster, LifeError> {
        let membership = contender.membership(replicas);
        let fresh = |id: NodeId| Replica { id, snapshots: MemorySnapshots::new(), lives: Vec::new() };
        let mut cluster = Cluster {
            network: contender.network(surroundings.transport, replicas).map_err(LifeError::Ports)?,
            logs: Logs::create(surroundings.storage, replicas)?,
            snapshot_entries: surroundings.snapshot_entries,
            replicas: membership.members().iter().map(|member| fresh(member.id)).collect(),
            membership,
            state_machine,
            seats: Seats::new(usize::try_from(replicas).expect("at most 64")),
        };
        for at in 0..cluster.replicas.len() {
            cluster.restart(at).await?;
        }
        Ok(cluster)
    }

    /// Where the replicas are found.
    #[must_use]
    pub fn seats(&self) -> &Seats {
        &self.seats
    }

    /// Ends a node like a crash: all that is left is what its storage had completed.
    pub async fn crash(&mut self, at: usize) {
        // Clients are told first, so that one whose call fails already knows that the node is gone.
        self.seats.vacate(at);
        self.running(at).abort().await;
    }

    /// Starts a node, on the storage of its last life if it had one.
    ///
    /// # Errors
    /// [`LifeError`].
    pub async fn restart(&mut self, at: usize) -> Result<(), LifeError> {
        let replica = &mut self.replicas[at];
        let life = Life {
            node: replica.id,
            membership: self.membership.clone(),
            log: self.logs.open(replica.id)?,
            snapshots: self.snapshot_entries.map(|entries| (replica.snapshots.clone(), entries)),
            state_machine: (self.state_machine)(),
        };
        let node = self.network.start(life).await?;
        replica.lives.push(node.clone());
        self.seats.occupy(at, node);
        Ok(())
    }

    /// What was sent and written so far.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        let mut traffic = Traffic::default();
        for life in self.replicas.iter().flat_map(|replica| &replica.lives) {
            let metrics = life.metrics();
            traffic.messages += metrics.envelopes_sent;
            traffic.bytes += metrics.bytes_sent;
            traffic.syncs += if self.logs.sync() { metrics.storage_writes } else { 0 };
            traffic.snapshots += metrics.snapshots_taken;
        }
        traffic
    }

    /// Each replica's state after the last command that any of them has applied, as a [`State`] tells it; none if
    /// they do not come to rest at one in `patience`.
    pub async fn states(&self, patience: Duration) -> Option<Vec<Bytes>> {
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            // What a node publishes may be old: it tells when asking is worth while, and the states themselves tell
            // whether they are of one index.
            if self.are_at_rest()
                && let Some(states) = timeout_at(deadline, self.ask_all()).await.ok().flatten()
                && states.windows(2).all(|pair| pair[0].through == pair[1].through)
            {
                return Some(states.into_iter().map(|state| state.content).collect());
            }
            sleep(Duration::from_millis(10)).await;
        }
        None
    }

    /// Ends all nodes in order.
    pub async fn shutdown(self) {
        let nodes = (0..self.replicas.len()).map(|at| self.running(at).shutdown());
        futures::future::join_all(nodes).await;
    }

    /// True if every replica has applied what was decided, as far as they have published it.
    fn are_at_rest(&self) -> bool {
        let statuses: Vec<_> = (0..self.replicas.len()).map(|at| self.running(at).status()).collect();
        let most = statuses.iter().map(|status| status.decided).max();
        statuses.iter().all(|status| Some(status.applied) == most && status.stopped().is_none())
    }

    async fn ask_all(&self) -> Option<Vec<State>> {
        let asks = (0..self.replicas.len()).map(|at| self.running(at).read(STATE_QUERY, Consistency::Local));
        let answers: Vec<Bytes> = futures::future::try_join_all(asks).await.ok()?;
        answers.into_iter().map(State::decode).collect()
    }

    fn running(&self, at: usize) -> &Node {
        self.replicas[at].lives.last().expect("every replica was started")
    }
}

/// Tells clients where to go; clones tell the same.
#[derive(Clone, Debug)]
pub struct Seats(watch::Sender<Arc<Seating>>);

/// Where the replicas are found at one moment.
#[derive(Clone, Debug)]
pub struct Seating {
    places: Vec<Option<Seat>>,
    /// The place of the leader of `reign`, unless it is gone.
    leader: Option<usize>,
    reign: Reign,
    lives: u64,
}

/// One life of one replica, as clients find it.
#[derive(Clone, Debug)]
pub struct Seat {
    /// The node.
    pub node: Node,
    /// Tells this life from all others of the run.
    pub life: u64,
}

impl Seating {
    /// The leader, if there is one.
    #[must_use]
    pub fn leader(&self) -> Option<(usize, &Seat)> {
        let at = self.leader?;
        Some((at, self.places[at].as_ref()?))
    }

    /// The replica at a place, unless it is gone.
    #[must_use]
    pub fn place(&self, at: usize) -> Option<&Seat> {
        self.places[at % self.places.len()].as_ref()
    }
}

impl Seats {
    fn new(count: usize) -> Seats {
        let seating = Seating { places: vec![None; count], leader: None, reign: Reign::default(), lives: 0 };
        Seats(watch::Sender::new(Arc::new(seating)))
    }

    /// The seating as it changes.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Arc<Seating>> {
        self.0.subscribe()
    }

    /// Waits for a leader; its place.
    pub async fn leader(&self) -> usize {
        let mut seating = self.watch();
        let seating = seating.wait_for(|seating| seating.leader.is_some()).await;
        seating.expect("the sender is held here").leader.expect("just waited for")
    }

    /// The number of the latest leadership period that anybody told of.
    #[must_use]
    pub fn reign(&self) -> Reign {
        self.0.borrow().reign
    }

    fn occupy(&self, at: usize, node: Node) {
        self.change(|seating| {
            seating.lives += 1;
            seating.places[at] = Some(Seat { node: node.clone(), life: seating.lives });
            true
        });
        let seats = self.clone();
        tokio::spawn(async move { seats.attend(at, node).await });
    }

    fn vacate(&self, at: usize) {
        self.change(|seating| {
            seating.places[at] = None;
            if seating.leader == Some(at) {
                seating.leader = None;
            }
            true
        });
    }

    /// Notes whenever this life of a node leads, to its end.
    async fn attend(&self, at: usize, node: Node) {
        let mut status = node.watch_status();
        // The node must be able to end when nobody else holds it.
        drop(node);
        loop {
            let (leads, reign, stopped) = {
                let status = status.borrow_and_update();
                (status.is_leader(), status.reign, status.stopped().is_some())
            };
            if stopped {
                return;
            }
            if leads {
                // An older reign than the latest leads nobody any more. This includes a crashed leader's.
                self.change(|seating| {
                    let news = seating.reign < reign;
                    if news {
                        (seating.leader, seating.reign) = (Some(at), reign);
                    }
                    news
                });
            }
            if status.changed().await.is_err() {
                return;
            }
        }
    }

    fn change(&self, change: impl FnOnce(&mut Seating) -> bool) {
        self.0.send_if_modified(|seating| change(Arc::make_mut(seating)));
    }
}
