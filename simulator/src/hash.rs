//! A cheap hash with a fixed seed, for traces and for entries.

/// Mixes `value` into `state`. Neither cryptographic nor hostile-proof: it tells runs apart.
#[inline]
#[must_use]
pub fn mix(state: u64, value: u64) -> u64 {
    let product = u128::from(state ^ value ^ 0x9E37_79B9_7F4A_7C15)
        * u128::from(0xD6E8_FEB8_6659_FD93 ^ state.rotate_left(32) | 1);
    (product as u64) ^ ((product >> 64) as u64)
}

/// Mixes bytes into `state`.
#[must_use]
pub fn mix_bytes(mut state: u64, bytes: &[u8]) -> u64 {
    state = mix(state, bytes.len() as u64);
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        state = mix(state, u64::from_le_bytes(*word));
    }
    if !rest.is_empty() {
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        state = mix(state, u64::from_le_bytes(last));
    }
    state
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_value_and_length_matter() {
        assert_ne!(mix(mix(1, 2), 3), mix(mix(1, 3), 2));
        assert_ne!(mix(0, 0), mix(0, 1));
        assert_ne!(mix_bytes(0, b"abc"), mix_bytes(0, b"abc\0"));
        assert_ne!(mix_bytes(0, b"12345678"), mix_bytes(0, b"12345679"));
    }
}
