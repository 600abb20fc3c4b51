//! What is asked of arbitrary bytes. Each function takes one input of the target of its name and panics if a
//! rule is broken; the tests of the workspace run them over the corpus.

use bytes::{Bytes, BytesMut};
use synod_core::{Envelope, Machine, Wire};
use synod_multipaxos::MultiPaxos;
use synod_raft::Raft;
use synod_transport::frame::{self, FrameError, HEADER_LEN, Split};
use synod_transport::handshake::{Greeting, PREFIX_LEN};
use synod_zab::Zab;

mod wal;

pub use wal::wal;

/// The limit that frames are split under.
const FRAME_BYTES_MAX: usize = 4096;

/// A stream gives the same frames however it is cut; none is longer than the limit, and each is put back
/// together as it was.
pub fn frame(data: &[u8]) {
    let Some((step, stream)) = data.split_first() else { return };
    let whole = split_all(stream, stream.len().max(1));
    let cut = split_all(stream, usize::from(*step).max(1));
    assert_eq!(whole, cut);
    let mut again = BytesMut::new();
    for body in &whole.0 {
        assert!(body.len() <= FRAME_BYTES_MAX);
        frame::put(&mut again, |out| out.extend_from_slice(body));
    }
    assert!(stream.starts_with(&again));
}

/// The bodies of a stream that comes `step` bytes at a time, and why it ends before its end.
fn split_all(stream: &[u8], step: usize) -> (Vec<Bytes>, Option<FrameError>) {
    let (mut buffer, mut bodies) = (BytesMut::new(), Vec::new());
    for part in stream.chunks(step) {
        buffer.extend_from_slice(part);
        loop {
            match frame::split(&mut buffer, FRAME_BYTES_MAX) {
                Ok(Split::Body(body)) => bodies.push(body),
                Ok(Split::Needs(needs)) => {
                    assert!(needs > buffer.len() && needs <= HEADER_LEN + FRAME_BYTES_MAX);
                    break;
                }
                Err(error) => return (bodies, Some(error)),
            }
        }
    }
    (bodies, None)
}

/// Bytes that are a greeting are that of the greeting they are read as, but for fields of later versions.
pub fn handshake(data: &[u8]) {
    if let Some(prefix) = data.first_chunk::<PREFIX_LEN>() {
        let _ = Greeting::body_len(prefix);
    }
    if let Ok(greeting) = Greeting::from_bytes(data) {
        let bytes = greeting.to_bytes();
        assert!(bytes.len() <= data.len());
        assert_eq!(Greeting::from_bytes(&bytes), Ok(greeting));
    }
}

/// Bytes that are an envelope of a protocol give one whose bytes have the length foretold and are read as the same.
pub fn message(data: &[u8]) {
    message_of::<Raft>(data);
    message_of::<MultiPaxos>(data);
    message_of::<Zab>(data);
}

fn message_of<M: Machine<Message: Wire>>(data: &[u8]) {
    let read = Envelope::<M::Message>::from_bytes(Bytes::copy_from_slice(data));
    if let Ok(envelope) = read {
        let bytes = envelope.to_bytes();
        assert_eq!(bytes.len(), envelope.wire_len());
        let again = Envelope::<M::Message>::from_bytes(bytes.clone());
        assert_eq!(again.map(|envelope| envelope.to_bytes()), Ok(bytes));
    }
}
