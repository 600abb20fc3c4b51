//! The suite of `synod-core` over real sockets on the loopback interface.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use synod_core::conformance::transport::{Letter, LetterTransport, TransportHarness, run_all};
use synod_core::{Identity, Incarnation, NodeId, Peer, Transport};
use synod_transport::{Tcp, TcpOptions};
use tokio::net::TcpSocket;
use tokio::runtime::{Builder, Runtime};

use crate::support::reserve;

struct Sockets {
    runtime: Runtime,
    /// Ports that belong to a node as long as it is held, whether it is up or not.
    ports: BTreeMap<NodeId, TcpSocket>,
    ends: BTreeMap<NodeId, std::sync::Weak<Tcp<Letter>>>,
    lives: u64,
    /// Of the certificates that nodes show each other, unless they speak plaintext.
    #[cfg(feature = "tls")]
    authority: Option<support::authority::Authority>,
}

impl Sockets {
    fn new(runtime: Runtime) -> Sockets {
        Sockets {
            runtime,
            ports: BTreeMap::new(),
            ends: BTreeMap::new(),
            lives: 0,
            #[cfg(feature = "tls")]
            authority: None,
        }
    }

    fn peers(&self) -> Vec<Peer> {
        let peer = |(id, port): (&NodeId, &TcpSocket)| Peer {
            id: *id,
            address: port.local_addr().expect("it is bound").to_string(),
        };
        self.ports.iter().map(peer).collect()
    }
}

impl TransportHarness for Sockets {
    fn connect(&mut self, nodes: &[NodeId]) -> Vec<LetterTransport> {
        let _inside = self.runtime.enter();
        self.ports = nodes.iter().map(|node| (*node, reserve())).collect();
        nodes.iter().map(|node| self.restart(*node)).collect()
    }

    fn restart(&mut self, node: NodeId) -> LetterTransport {
        self.lives += 1;
        let peers = self.peers();
        let options = TcpOptions {
            queue_bytes_max: 4 << 20,
            frame_bytes_max: 2 << 20,
            inbox_bytes_max: 4 << 20,
            ..TcpOptions::default()
        };
        let address = self.ports[&node].local_addr().expect("it is bound");
        #[cfg(feature = "tls")]
        let end = match &self.authority {
            Some(authority) => {
                self.runtime.block_on(Tcp::bind_with(address, [], authority.tls(node.0), options))
            }
            None => self.runtime.block_on(Tcp::bind_plaintext_with(address, [], options)),
        };
        #[cfg(not(feature = "tls"))]
        let end = self.runtime.block_on(Tcp::bind_plaintext_with(address, [], options));
        let end = end.expect("the port is free");
        let end = Arc::new(end);
        end.open(
            &Identity { node, cluster: support::CLUSTER, ..Identity::default() },
            Incarnation(self.lives),
        );
        end.set_peers(&peers);
        self.ends.insert(node, Arc::downgrade(&end));
        end
    }

    fn close(&mut self, node: NodeId) {
        self.ends[&node].upgrade().expect("the suite holds it").close();
    }

    fn settle(&mut self) {
        // Lets the tasks of the runtime run for a while.
        let while_running =
            async { tokio::time::timeout(Duration::from_millis(5), std::future::pending::<()>()).await };
        let _ = self.runtime.block_on(while_running);
    }

    fn queue_envelopes_max(&self) -> usize {
        30_000
    }
}

#[test]
fn the_suite_passes_on_one_thread() {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let report = run_all(&mut Sockets::new(runtime));
    report.assert_passed();
    assert_eq!(report.skipped, [""; 0]);
}

#[test]
fn the_suite_passes_on_two_threads() {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let report = run_all(&mut Sockets::new(runtime));
    report.assert_passed();
    assert_eq!(report.skipped, [""; 0]);
}

#[cfg(feature = "tls")]
#[test]
fn the_suite_passes_with_tls() {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let authority = Some(support::authority::Authority::new("ours"));
    let report = run_all(&mut Sockets { authority, ..Sockets::new(runtime) });
    report.assert_passed();
    assert_eq!(report.skipped, [""; 0]);
}
