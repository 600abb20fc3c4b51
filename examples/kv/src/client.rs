//! The client side: one connection to one node.

use std::io;

use tokio::io::BufReader;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpStream, ToSocketAddrs};

use crate::wire::{self, Request, Response};

/// A connection to a node's client address.
#[derive(Debug)]
pub struct Connection {
    read: BufReader<OwnedReadHalf>,
    write: OwnedWriteHalf,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// Whatever the system says.
    pub async fn open(address: impl ToSocketAddrs) -> io::Result<Connection> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (read, write) = stream.into_split();
        Ok(Connection { read: BufReader::new(read), write })
    }

    /// Asks, and waits for the answer. After an error, or if the future was dropped, the connection must
    /// not be used again: a put may or may not have been taken.
    ///
    /// # Errors
    /// Whatever the system says; `UnexpectedEof` if the node hung up.
    ///
    /// # Cancel safety
    /// Not cancel-safe.
    pub async fn ask(&mut self, request: &Request) -> io::Result<Response> {
        wire::send(&mut self.write, request).await?;
        wire::receive(&mut self.read).await?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}
