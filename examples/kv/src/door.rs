//! Where a node answers its clients.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use synod_core::memory::{Get, Put};
use synod_runtime::{Consistency, Node};
use tokio::io::BufReader;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::wire::{self, Request, Response, Standing};

/// Connections served at a time; more wait to be accepted.
const CONNECTIONS_MAX: usize = 1024;

/// Answers clients at `listener` until the node stops or accepting fails for good.
pub async fn serve(listener: TcpListener, node: Node) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, peer)) => {
                let node = node.clone();
                tokio::spawn(async move {
                    if let Err(error) = attend(stream, &node).await {
                        tracing::debug!(%peer, %error, "client connection ended");
                    }
                    drop(place);
                });
            }
            // A connection that ended before it was accepted, or no descriptor left: others go on.
            Err(error) => {
                tracing::warn!(%error, "no client was accepted");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
    }
}

/// One connection: requests are answered in order, one at a time.
async fn attend(stream: TcpStream, node: &Node) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    loop {
        let request = match wire::receive::<Request>(&mut read).await {
            Ok(Some(request)) => request,
            Ok(None) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                // Where the next request would begin is not known after a line that is none.
                return wire::send(&mut write, &Response::Failed { error: error.to_string() }).await;
            }
            Err(error) => return Err(error),
        };
        wire::send(&mut write, &answer(node, request).await).await?;
    }
}

async fn answer(node: &Node, request: Request) -> Response {
    match request {
        Request::Put { key, value } => match node.propose(Put { key: key.into(), value: value.into() }).await
        {
            Ok(_) => Response::Ok,
            Err(error) => {
                let text = error.to_string();
                match error.into_command() {
                    Some(_) => Response::Failed { error: text },
                    None => Response::Unknown { error: text },
                }
            }
        },
        Request::Get { key, local } => {
            let consistency = if local { Consistency::Local } else { Consistency::Linearizable };
            match node.read(Get { key: key.into() }, consistency).await {
                Ok(value) => Response::Value { value: value.map(text) },
                Err(error) => Response::Failed { error: error.to_string() },
            }
        }
        Request::Status => {
            let status = node.status();
            Response::Status(Standing {
                id: status.node.0,
                incarnation: status.incarnation.0,
                role: status.role.to_string(),
                leader: status.leader.map(|leader| leader.0),
                reign: status.reign.number,
                decided: status.decided.0,
                applied: status.applied.0,
                snapshot: status.snapshot.0,
                snapshots_installed: node.metrics().snapshots_installed,
            })
        }
    }
}

/// Values come from JSON strings, so this changes none.
fn text(value: Bytes) -> String {
    String::from_utf8_lossy(&value).into_owned()
}
