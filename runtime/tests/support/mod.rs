//! A cluster in process, and storages that misbehave on demand.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use synod_core::memory::{Get, KeyValue, MemoryNetwork, MemoryStorage, Put};
use synod_core::{Identity, LogReader, Machine, NodeId, Recovered, Storage, StorageError, Write};
use synod_raft::{Raft, RaftConfig};
use synod_runtime::{Node, NodeBuilder};

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

/// Three nodes in one process, each with a storage that survives it.
pub struct Cluster {
    pub network: MemoryNetwork<Message>,
    pub storages: Vec<MemoryStorage>,
    pub nodes: Vec<Node>,
}

pub fn config() -> RaftConfig {
    Raft::config()
}

impl Cluster {
    pub async fn of(size: u64) -> Cluster {
        Cluster::with(size, |builder| builder).await
    }

    pub async fn with(
        size: u64,
        change: impl Fn(NodeBuilder<RaftConfig, KeyValue>) -> NodeBuilder<RaftConfig, KeyValue>,
    ) -> Cluster {
        let mut cluster = Cluster { network: MemoryNetwork::new(), storages: Vec::new(), nodes: Vec::new() };
        for id in 1..=size {
            cluster.storages.push(MemoryStorage::new());
            let builder = cluster.builder(size, NodeId(id));
            cluster.nodes.push(change(builder).start().await.expect("the node starts"));
        }
        cluster
    }

    pub fn builder(&self, size: u64, id: NodeId) -> NodeBuilder<RaftConfig, KeyValue> {
        Node::builder(id, config())
            .members(1..=size)
            .storage(self.storages[id.0 as usize - 1].clone())
            .transport(self.network.attach(id))
            .state_machine(KeyValue::default())
            .seed(id.0)
    }

    pub async fn restart(&mut self, id: NodeId) {
        let size = self.storages.len() as u64;
        let node = self.builder(size, id).start().await.expect("the node starts again");
        self.nodes[id.0 as usize - 1] = node;
    }

    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize - 1]
    }

    /// Waits until a majority of the running nodes follow one leader that says so itself.
    pub async fn leader(&self) -> NodeId {
        loop {
            for node in &self.nodes {
                let status = node.status();
                if status.is_leader() && status.stopped().is_none() {
                    let agree = self.nodes.iter().filter(|n| n.status().leader == Some(status.node)).count();
                    if agree * 2 > self.nodes.len() {
                        return status.node;
                    }
                }
            }
            let changes = self.nodes.iter().map(|node| {
                let mut status = node.watch_status();
                Box::pin(async move {
                    let _ = status.changed().await;
                })
            });
            // A change may have come between the look and the wait: look again soon.
            let _ =
                tokio::time::timeout(Duration::from_millis(20), futures::future::select_all(changes)).await;
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
    held: Mutex<bool>,
    released: std::sync::Condvar,
}

impl Switch {
    pub fn fail(&self) {
        self.failing.store(true, Ordering::SeqCst);
    }

    /// From now on writes wait.
    pub fn hold(&self) {
        *self.held.lock().unwrap() = true;
    }

    pub fn release(&self) {
        *self.held.lock().unwrap() = false;
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
            let mut held = self.switch.held.lock().unwrap();
            while *held {
                held = self.switch.released.wait(held).unwrap();
            }
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
