//! The contents of a snapshot: a format byte, the session table after its length (eight bytes, little-endian), and
//! what the state machine wrote.

use std::io::{self, Read, Write};

use bytes::Bytes;
use synod_core::{SessionLimits, SnapshotContents, SnapshotSource, StateMachine, StateMachineError};

use crate::sessions::Sessions;

/// The only format there is.
const FORMAT: u8 = 1;

pub(super) fn write(
    out: &mut dyn Write,
    sessions: &Bytes,
    source: Box<dyn SnapshotSource>,
) -> io::Result<()> {
    out.write_all(&[FORMAT])?;
    out.write_all(&(sessions.len() as u64).to_le_bytes())?;
    out.write_all(sessions)?;
    source.write_to(out)
}

/// Makes `state` what the snapshot says and returns the session table.
pub(crate) fn restore(
    contents: &mut SnapshotContents,
    limits: SessionLimits,
    state: &mut impl StateMachine,
) -> Result<Sessions, StateMachineError> {
    let sessions = read_sessions(contents, limits).map_err(|source| StateMachineError {
        message: format!("the session table of {} cannot be read", contents.head().id),
        source: Some(Box::new(source)),
    })?;
    state.restore(contents)?;
    Ok(sessions)
}

fn read_sessions(from: &mut impl Read, limits: SessionLimits) -> io::Result<Sessions> {
    let mut start = [0; 9];
    from.read_exact(&mut start)?;
    let [format, len @ ..] = start;
    if format != FORMAT {
        return Err(io::Error::other(format!("format {format} is not known here")));
    }
    let len = u64::from_le_bytes(len);
    let mut bytes = Vec::new();
    from.take(len).read_to_end(&mut bytes)?;
    if bytes.len() as u64 != len {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Sessions::decode(limits, Bytes::from(bytes)).map_err(io::Error::other)
}
