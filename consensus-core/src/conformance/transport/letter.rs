//! The message that the suite sends.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use crate::wire::put_bytes;
use crate::{DecodeError, Wire, WireReader};

/// A numbered message with a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// Tells one letter of a check from the others.
    pub number: u64,
    /// What must arrive unchanged.
    pub body: Bytes,
}

impl Wire for Letter {
    fn wire_len(&self) -> usize {
        8 + 4 + self.body.len()
    }

    fn encode(&self, out: &mut BytesMut) {
        out.put_u64_le(self.number);
        put_bytes(out, &self.body);
    }

    fn decode(from: &mut WireReader) -> Result<Letter, DecodeError> {
        Ok(Letter { number: from.u64()?, body: from.bytes()? })
    }
}

impl fmt::Display for Letter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "letter {} of {} bytes", self.number, self.body.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_is_read_back_as_it_was_written() {
        let letter = Letter { number: 7, body: Bytes::from_static(b"\x00\xff") };
        assert_eq!(letter.to_bytes().len(), letter.wire_len());
        assert_eq!(Letter::from_bytes(letter.to_bytes()), Ok(letter));
    }
}
