//! Reading a greeting from a socket: bounded, and no byte further.

use std::io;

use crate::handshake::{BODY_LEN_MAX, Greeting, PREFIX_LEN, Refusal};
use crate::socket::Socket;

/// Why there is no greeting.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GreetError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Refused(#[from] Refusal),
}

pub(crate) async fn read_greeting(socket: &Socket) -> Result<Greeting, GreetError> {
    let mut bytes = [0; PREFIX_LEN + BODY_LEN_MAX];
    let (prefix, body) = bytes.split_first_chunk_mut::<PREFIX_LEN>().expect("it is longer");
    socket.read_exact(prefix).await?;
    let len = Greeting::body_len(prefix)?;
    socket.read_exact(&mut body[..len]).await?;
    Ok(Greeting::from_bytes(&bytes[..PREFIX_LEN + len])?)
}
