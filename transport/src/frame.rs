//! Frames: how envelopes are cut out of a stream of bytes.
//!
//! | bytes | what |
//! |---|---|
//! | 4 | length of the body |
//! | 4 | CRC-32C of the length and the body |
//! | length | the body: one [`Envelope`](synod_core::Envelope), or nothing |
//!
//! Numbers are little-endian. A frame without a body is a heartbeat, or the answer to one. The length is
//! compared with the limit before anything is allocated by it, and the checksum covers it.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The bytes before a body.
pub const HEADER_LEN: usize = 8;

/// A frame without a body.
pub const HEARTBEAT: [u8; HEADER_LEN] = [0, 0, 0, 0, 0xc7, 0x4b, 0x67, 0x48];

/// Why bytes are no frame. Nothing after them can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// Longer than this end takes.
    #[error("a frame of {len} bytes, at most {max} are taken")]
    TooLong {
        /// The length that the header states.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// The checksum is that of other bytes.
    #[error("the checksum of a frame does not match")]
    Checksum,
}

/// What stands at the front of a buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Split {
    /// A whole frame, taken off the buffer: its body, which shares the buffer's memory.
    Body(Bytes),
    /// A part of a frame, left in the buffer, which must hold this many bytes for it to be whole.
    Needs(usize),
}

/// Appends a frame whose body `write` appends.
///
/// # Panics
/// If the body is 4 GiB or longer.
pub fn put(out: &mut BytesMut, write: impl FnOnce(&mut BytesMut)) {
    let at = out.len();
    out.put_bytes(0, HEADER_LEN);
    write(out);
    let (header, body) = out[at..].split_at_mut(HEADER_LEN);
    let len = u32::try_from(body.len()).expect("a frame is shorter than 4 GiB").to_le_bytes();
    header[..4].copy_from_slice(&len);
    header[4..].copy_from_slice(&checksum(len, body).to_le_bytes());
}

/// Takes a frame off the front of `buffer` if a whole one is there; `max` limits its body.
///
/// # Errors
/// [`FrameError`]; the connection is of no use any more.
pub fn split(buffer: &mut BytesMut, max: usize) -> Result<Split, FrameError> {
    let Some((header, _)) = buffer.split_first_chunk::<HEADER_LEN>() else {
        return Ok(Split::Needs(HEADER_LEN));
    };
    let [a, b, c, d, sum @ ..] = *header;
    let len_bytes = [a, b, c, d];
    let len = u32::from_le_bytes(len_bytes) as usize;
    if len > max {
        return Err(FrameError::TooLong { len, max });
    }
    let whole = HEADER_LEN + len;
    if buffer.len() < whole {
        return Ok(Split::Needs(whole));
    }
    if checksum(len_bytes, &buffer[HEADER_LEN..whole]) != u32::from_le_bytes(sum) {
        return Err(FrameError::Checksum);
    }
    buffer.advance(HEADER_LEN);
    Ok(Split::Body(buffer.split_to(len).freeze()))
}

fn checksum(len: [u8; 4], body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&len), body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(body: &[u8]) -> BytesMut {
        let mut out = BytesMut::new();
        put(&mut out, |out| out.put_slice(body));
        out
    }

    #[test]
    fn the_layout_is_fixed() {
        assert_eq!(&framed(b"")[..], HEARTBEAT);
        assert_eq!(&framed(b"synod")[..], b"\x05\0\0\0\x90\xd9\x62\xcasynod");
    }

    #[test]
    fn a_frame_is_taken_whole_and_the_next_one_is_left() {
        let mut buffer = framed(b"first");
        buffer.unsplit(framed(b"second"));
        let all = buffer.clone();
        assert_eq!(split(&mut buffer, 6), Ok(Split::Body(Bytes::from_static(b"first"))));
        assert_eq!(&buffer[..], &framed(b"second")[..]);
        for cut in 0..13 {
            let mut part = BytesMut::from(&all[..cut]);
            let needs = if cut < HEADER_LEN { HEADER_LEN } else { 13 };
            assert_eq!(split(&mut part, 6), Ok(Split::Needs(needs)));
            assert_eq!(part.len(), cut);
        }
    }

    #[test]
    fn a_body_at_the_limit_is_taken_and_one_above_it_is_refused_by_its_header_alone() {
        assert_eq!(split(&mut framed(b"12345"), 5), Ok(Split::Body(Bytes::from_static(b"12345"))));
        let mut header = BytesMut::from(&framed(b"12345")[..HEADER_LEN]);
        let capacity = header.capacity();
        assert_eq!(split(&mut header, 4), Err(FrameError::TooLong { len: 5, max: 4 }));
        assert_eq!(header.capacity(), capacity);
    }

    #[test]
    fn every_changed_bit_is_found() {
        let good = framed(b"every bit counts");
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            match split(&mut bad, 16) {
                Err(_) | Ok(Split::Needs(_)) => {}
                Ok(Split::Body(body)) => {
                    panic!("bit {bit} is changed and the frame is taken: {body:?}");
                }
            }
        }
    }
}
