//! What can be chosen about a log.

use crate::format::SEGMENT_HEADER_LEN;

/// What can be chosen about a log. Nothing here makes it less durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalOptions {
    pub(crate) segment_bytes: u64,
}

impl Default for WalOptions {
    fn default() -> WalOptions {
        WalOptions { segment_bytes: 16 << 20 }
    }
}

impl WalOptions {
    /// The least [`WalOptions::segment_bytes`].
    pub const SEGMENT_BYTES_MIN: u64 = 2 * SEGMENT_HEADER_LEN;
    /// The largest [`WalOptions::segment_bytes`].
    pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;

    /// How long a segment file is, in bytes; 16 MiB by default. A log takes at least twice that: one segment is
    /// being written, and the next one is ready. A batch that does not fit gets a longer segment of its own.
    #[must_use]
    pub fn segment_bytes(mut self, bytes: u64) -> WalOptions {
        self.segment_bytes = bytes;
        self
    }

    /// Says whether a log can be kept like this.
    ///
    /// # Errors
    /// [`OptionsError`] names what cannot be.
    pub fn validate(&self) -> Result<(), OptionsError> {
        let allowed = WalOptions::SEGMENT_BYTES_MIN..=WalOptions::SEGMENT_BYTES_MAX;
        if !allowed.contains(&self.segment_bytes) {
            return Err(OptionsError::SegmentBytes(self.segment_bytes));
        }
        if !self.segment_bytes.is_multiple_of(512) {
            return Err(OptionsError::SegmentSectors(self.segment_bytes));
        }
        Ok(())
    }
}

/// Settings that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OptionsError {
    /// Too small to hold a batch, or too large.
    #[error("a segment of {0} bytes is not between {min} and {max}", min = WalOptions::SEGMENT_BYTES_MIN, max = WalOptions::SEGMENT_BYTES_MAX)]
    SegmentBytes(u64),
    /// Not made of whole sectors.
    #[error("a segment of {0} bytes is not a multiple of 512")]
    SegmentSectors(u64),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_is_named() {
        let check = |bytes| WalOptions::default().segment_bytes(bytes).validate();
        assert_eq!(WalOptions::default().validate(), Ok(()));
        assert_eq!(check(8192), Ok(()));
        assert_eq!(check(8192 + 512), Ok(()));
        assert_eq!(check(8191), Err(OptionsError::SegmentBytes(8191)));
        assert_eq!(check((1 << 30) + 512), Err(OptionsError::SegmentBytes((1 << 30) + 512)));
        assert_eq!(check(10_000), Err(OptionsError::SegmentSectors(10_000)));
    }
}
