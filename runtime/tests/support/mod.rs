//! A cluster in process, and storages that misbehave on demand.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use synod_core::memory::{Get, MemoryNetwork, MemoryStorage, Put};
use synod_core::{
    Applied, Identity, LogReader, Machine, NodeId, Outputs, Recovered, StateMachine, StateMachineError,
    Storage, StorageError, Write,
};
use synod_raft::{Raft, RaftConfig};
use synod_runtime::{Node, NodeBuilder, NodeStatus};

pub type Message = <Raft as Machine>::Message;

pub fn bytes(text: impl Into<String>) -> Bytes {
    Bytes::from(text.into())
}

pub fn put(key: impl Into<String>, value: impl Into<String>) -> Put {
    Put { key: bytes(key), value: bytes(value) }
}

pub fn get(key: impl Into<String>) -> Get {
    Get { key: bytes(key) }
}

/// Nodes in one process, each with a storage that survives it.
pub struct Cluster<S: StateMachine> {
    pub network: MemoryNetwork<Message>,
    pub storages: Vec<MemoryStorage>,
    pub nodes: Vec<Node>,
    make: fn() -> S,
}

impl<S: StateMachine> Cluster<S> {
    pub async fn of(size: u64, make: fn() -> S) -> Cluster<S> {
        let storages = (0..size).map(|_| MemoryStorage::new()).collect();
        let mut cluster = Cluster { network: MemoryNetwork::new(), storages, nodes: Vec::new(), make };
        for id in 1..=size {
            let node = cluster.builder(NodeId(id)).start().await.expect("the node starts");
            cluster.nodes.push(node);
        }
        cluster
    }

    pub fn builder(&self, id: NodeId) -> NodeBuilder<RaftConfig, S> {
        Node::builder(id, Raft::config())
            .members(1..=self.storages.len() as u64)
            .storage(self.storages[id.0 as usize - 1].clone())
            .transport(self.network.attach(id))
            .state_machine((self.make)())
            .seed(id.0)
    }

    pub async fn restart(&mut self, id: NodeId) {
        let node = self.builder(id).start().await.expect("the node starts again");
        self.nodes[id.0 as usize - 1] = node;
    }

    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize - 1]
    }

    /// Waits until the running nodes, a majority, agree on one running leader.
    pub async fn leader(&self) -> NodeId {
        loop {
            let mut watched: Vec<_> = self.nodes.iter().map(Node::watch_status).collect();
            let running: Vec<NodeStatus> = watched
                .iter_mut()
                .map(|status| status.borrow_and_update().clone())
                .filter(|status| status.stopped().is_none())
                .collect();
            let leaders: Vec<NodeId> = running.iter().filter(|s| s.is_leader()).map(|s| s.node).collect();
            if let [leader] = leaders[..]
                && running.len() * 2 > self.nodes.len()
                && running.iter().all(|status| status.leader == Some(leader))
            {
                return leader;
            }
            let changes = watched.iter_mut().map(|status| Box::pin(status.changed()));
            let _ = futures::future::select_all(changes).await;
        }
    }

    pub async fn follower(&self) -> NodeId {
        let leader = self.leader().await;
        self.nodes.iter().map(Node::id).find(|id| *id != leader).expect("there are followers")
    }

    pub async fn shutdown(self) {
        for node in &self.nodes {
            node.shutdown().await;
        }
    }
}

/// A memory log behind the storage thread, which can be made to hold its writes, or to fail.
#[derive(Clone, Default)]
pub struct SlowStorage {
    log: MemoryStorage,
    pub switch: Arc<Switch>,
}

#[derive(Default)]
pub struct Switch {
    failing: AtomicBool,
    /// How many writes still pass, if later ones are held.
    passing: Mutex<Option<usize>>,
    released: std::sync::Condvar,
}

impl Switch {
    pub fn fail(&self) {
        self.failing.store(true, Ordering::SeqCst);
    }

    /// From now on writes wait.
    pub fn hold(&self) {
        self.pass(Some(0));
    }

    /// One write more passes.
    pub fn release_one(&self) {
        self.pass(Some(1));
    }

    pub fn release(&self) {
        self.pass(None);
    }

    fn pass(&self, writes: Option<usize>) {
        *self.passing.lock().unwrap() = writes;
        self.released.notify_all();
    }
}

#[async_trait]
impl Storage for SlowStorage {
    async fn recover(&mut self, identity: &Identity) -> Result<Recovered, StorageError> {
        self.log.recover(identity).await
    }

    async fn write(&mut self, batch: &[Write]) -> Result<(), StorageError> {
        {
            let mut passing = self.switch.passing.lock().unwrap();
            while *passing == Some(0) {
                passing = self.switch.released.wait(passing).unwrap();
            }
            *passing = passing.map(|writes| writes - 1);
        }
        if self.switch.failing.load(Ordering::SeqCst) {
            return Err(StorageError::Io {
                operation: "fdatasync",
                source: Arc::new(std::io::Error::other("no space left")),
            });
        }
        self.log.write(batch).await
    }

    fn reader(&self) -> Arc<dyn LogReader> {
        self.log.reader()
    }

    fn blocking(&self) -> bool {
        true
    }
}

/// Keeps every command in the order applied. Answers how many there are; a query gives them all.
#[derive(Default)]
pub struct Lines {
    pub lines: Vec<Bytes>,
    /// A command with this content is an error of the state machine.
    pub poison: Option<&'static str>,
    /// A command with this content panics.
    pub bomb: Option<&'static str>,
}

impl StateMachine for Lines {
    fn apply(&mut self, batch: &[Applied<'_>], out: &mut Outputs) -> Result<(), StateMachineError> {
        for applied in batch {
            let is = |text: Option<&str>| text.is_some_and(|text| text.as_bytes() == applied.payload);
            if is(self.poison) {
                return Err(StateMachineError::new("poisoned"));
            }
            assert!(!is(self.bomb), "the bomb of the test");
            self.lines.push(applied.payload.clone());
            out.reply(Bytes::from(self.lines.len().to_string()));
        }
        Ok(())
    }

    fn query(&self, query: &[u8]) -> Result<Bytes, StateMachineError> {
        if query != b"all" {
            return Err(StateMachineError::new("the only question is `all`"));
        }
        Ok(Bytes::from(self.lines.join(&b"\n"[..])))
    }
}

/// Watches a node's status until `wanted`.
pub async fn until(node: &Node, wanted: impl FnMut(&NodeStatus) -> bool) -> NodeStatus {
    node.watch_status().wait_for(wanted).await.expect("the node is held").clone()
}
