//! What clients and nodes say to each other: one JSON object a line, one answer for each request, in order.

use std::io;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The longest line either side takes, in bytes.
pub const LINE_MAX: usize = 1 << 20;

/// What a client asks: `{"op":"put","key":"colour","value":"blue"}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Sets a key.
    Put {
        /// The key.
        key: String,
        /// Its new value.
        value: String,
    },
    /// Asks for a key's value.
    Get {
        /// The key.
        key: String,
        /// Take what this node has applied, which may be stale, instead of a linearizable answer.
        #[serde(default)]
        local: bool,
    },
    /// Asks how the node stands.
    Status,
}

/// What a node answers: `{"outcome":"ok"}`, `{"outcome":"value","value":"blue"}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case", deny_unknown_fields)]
pub enum Response {
    /// The put was applied.
    Ok,
    /// The value of the key, `null` if it has none.
    Value {
        /// The value.
        value: Option<String>,
    },
    /// How the node stands.
    Status(Standing),
    /// The request surely had no effect.
    Failed {
        /// Why.
        error: String,
    },
    /// The put may have been applied, or may be later.
    Unknown {
        /// What is known.
        error: String,
    },
}

/// How a node stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Its id.
    pub id: u64,
    /// How often it was started.
    pub incarnation: u64,
    /// What it is in its protocol.
    pub role: String,
    /// Who leads, as far as it knows.
    pub leader: Option<u64>,
    /// The leadership period.
    pub reign: u64,
    /// Decided through this index.
    pub decided: u64,
    /// Applied through this index.
    pub applied: u64,
    /// Its newest snapshot holds everything through this index.
    pub snapshot: u64,
    /// How many snapshots of peers took the place of its log since its start.
    pub snapshots_installed: u64,
}

/// Reads a line and what it stands for; `None` at the end of the stream.
///
/// # Errors
/// `InvalidData` for a line that is too long or is no such value, and whatever the stream says.
///
/// # Cancel safety
/// Not cancel-safe: a part of a line may be lost.
pub async fn receive<T: for<'a> Deserialize<'a>>(
    from: &mut (impl AsyncBufRead + Unpin),
) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    from.take(LINE_MAX as u64 + 1).read_until(b'\n', &mut line).await?;
    if line.is_empty() {
        return Ok(None);
    }
    if line.len() > LINE_MAX {
        return Err(invalid(format!("a line is longer than {LINE_MAX} bytes")));
    }
    if line.last() != Some(&b'\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    serde_json::from_slice(&line).map(Some).map_err(|error| invalid(error.to_string()))
}

/// Writes a value as a line.
///
/// # Errors
/// Whatever the stream says.
pub async fn send<T: Serialize>(to: &mut (impl AsyncWrite + Unpin), value: &T) -> io::Result<()> {
    let mut line = serde_json::to_vec(value).map_err(|error| invalid(error.to_string()))?;
    line.push(b'\n');
    to.write_all(&line).await?;
    to.flush().await
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_answers_read_as_documented() {
        let put: Request = serde_json::from_str(r#"{"op":"put","key":"colour","value":"blue"}"#).unwrap();
        assert_eq!(put, Request::Put { key: "colour".into(), value: "blue".into() });
        let get: Request = serde_json::from_str(r#"{"op":"get","key":"colour"}"#).unwrap();
        assert_eq!(get, Request::Get { key: "colour".into(), local: false });
        let value = Response::Value { value: None };
        assert_eq!(serde_json::to_string(&value).unwrap(), r#"{"outcome":"value","value":null}"#);
        assert!(serde_json::from_str::<Request>(r#"{"op":"drop"}"#).is_err());
    }

    #[tokio::test]
    async fn a_line_without_end_and_a_line_without_sense_are_refused() {
        let endless = vec![b'x'; LINE_MAX + 2];
        let error = receive::<Request>(&mut &endless[..]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let error = receive::<Request>(&mut &b"put it\n"[..]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let cut = receive::<Request>(&mut &br#"{"op":"status"}"#[..]).await.unwrap_err();
        assert_eq!(cut.kind(), io::ErrorKind::UnexpectedEof);
        assert!(receive::<Request>(&mut &b""[..]).await.unwrap().is_none());
    }
}
