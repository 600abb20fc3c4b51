//! Ports of the loopback interface for the replicas of one run.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use synod_core::{NodeId, Peer};
use tokio::net::TcpSocket;

/// A port for each replica, chosen by the operating system. While this is held nobody else gets one of them,
/// whether the replica is up or not.
#[derive(Debug)]
pub struct Loopback(Vec<Reserved>);

#[derive(Debug)]
struct Reserved {
    node: NodeId,
    address: SocketAddr,
    /// Bound and not listening: a second socket with the option may listen there.
    _socket: TcpSocket,
}

impl Loopback {
    /// Ports for replicas `1..=replicas`.
    ///
    /// # Errors
    /// The operating system's, if it has none left.
    pub fn reserve(replicas: u64) -> io::Result<Loopback> {
        let reserve = |node| {
            let socket = TcpSocket::new_v4()?;
            socket.set_reuseaddr(true)?;
            socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
            Ok(Reserved { node: NodeId(node), address: socket.local_addr()?, _socket: socket })
        };
        (1..=replicas).map(reserve).collect::<io::Result<_>>().map(Loopback)
    }

    /// Where a replica listens.
    ///
    /// # Panics
    /// If it has no port.
    #[must_use]
    pub fn address(&self, node: NodeId) -> SocketAddr {
        self.0.iter().find(|reserved| reserved.node == node).expect("a replica of the run").address
    }

    /// Where all are found.
    #[must_use]
    pub fn peers(&self) -> Vec<Peer> {
        let peer = |one: &Reserved| Peer { id: one.node, address: one.address.to_string() };
        self.0.iter().map(peer).collect()
    }
}
