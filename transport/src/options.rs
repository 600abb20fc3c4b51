//! Bounds of queues, frames and patience.

use std::time::Duration;

use synod_core::ConfigError;

/// Room for reads of a connection and for what encryption holds, both ways, in bytes.
const CONNECTIONS_BYTES: usize = 1 << 20;

/// Bounds of a [`Tcp`](crate::Tcp). The longest frame should be the same on every node; the rest may differ
/// without harm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpOptions {
    /// The longest body of a frame, in bytes: 8 MiB. An envelope that is longer is sent as several; a packet
    /// that is longer by itself is dropped, and a node whose settings send one does not start. A node that would send longer frames than another takes is
    /// refused by it.
    pub frame_bytes_max: usize,
    /// Envelopes that wait to be written to one peer, beyond which the newest is dropped: 4,096.
    pub queue_envelopes_max: usize,
    /// Bytes that wait to be written to one peer, beyond which the newest envelope is dropped: 32 MiB.
    pub queue_bytes_max: usize,
    /// Envelopes of one peer that wait to be received, beyond which its connection is not read: 4,096.
    pub inbox_envelopes_max: usize,
    /// Bytes of one peer that wait to be received, beyond which its connection is not read: 32 MiB. The frame
    /// that crosses a bound still comes in.
    pub inbox_bytes_max: usize,
    /// Connections that have not said who they are; with one more, the oldest is refused: 64.
    pub handshakes_max: usize,
    /// The same for connections from one address (IPv4) or one network of 64 bits (IPv6): 16. Whoever floods the
    /// port keeps nobody out who calls from elsewhere.
    pub handshakes_per_address_max: usize,
    /// Bytes that are read from a connection while the handshake of TLS is not over: 32 KiB.
    pub handshake_bytes_max: usize,
    /// How long connecting and the handshake, that of TLS included, may take, each: 1 s.
    pub handshake_timeout: Duration,
    /// How often a connection is asked for a sign of life: every 250 ms.
    pub heartbeat: Duration,
    /// How long a connection may give no sign of life, or take nothing of what waits for it, until it is
    /// given up: 1.5 s.
    pub silence_max: Duration,
    /// The first wait before a peer is dialed again: 10 ms. It doubles with each attempt; half of each wait
    /// is random.
    pub backoff_min: Duration,
    /// The longest such wait: 1 s.
    pub backoff_max: Duration,
}

impl Default for TcpOptions {
    fn default() -> TcpOptions {
        TcpOptions {
            frame_bytes_max: 8 << 20,
            queue_envelopes_max: 4096,
            queue_bytes_max: 32 << 20,
            inbox_envelopes_max: 4096,
            inbox_bytes_max: 32 << 20,
            handshakes_max: 64,
            handshakes_per_address_max: 16,
            handshake_bytes_max: 32 << 10,
            handshake_timeout: Duration::from_secs(1),
            heartbeat: Duration::from_millis(250),
            silence_max: Duration::from_millis(1500),
            backoff_min: Duration::from_millis(10),
            backoff_max: Duration::from_secs(1),
        }
    }
}

impl TcpOptions {
    /// The shortest limit of a frame that makes sense, in bytes.
    pub const FRAME_BYTES_MIN: usize = 1024;

    /// What a transport holds for one peer at most, in bytes: what waits to be written and to be received, the frame
    /// that crosses each bound, and the buffers of both connections. Received frames are counted as they came: decoded,
    /// very short commands take more.
    #[must_use]
    pub fn peer_bytes_max(&self) -> usize {
        let inbox = self.inbox_bytes_max + self.frame_bytes_max;
        let outbox = 2 * self.queue_bytes_max;
        inbox + outbox + self.frame_bytes_max + CONNECTIONS_BYTES
    }

    /// Checks that the bounds fit together.
    ///
    /// # Errors
    /// [`ConfigError`] names the setting.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let error = |setting, problem| Err(ConfigError { setting, problem });
        if self.frame_bytes_max < TcpOptions::FRAME_BYTES_MIN {
            return error("frame_bytes_max", "must be 1024 at least");
        }
        if u32::try_from(self.frame_bytes_max).is_err() {
            return error("frame_bytes_max", "must be below 4 GiB");
        }
        if self.queue_bytes_max / 2 < self.frame_bytes_max {
            return error("queue_bytes_max", "must hold two of the longest frames");
        }
        let positive = [
            ("queue_envelopes_max", self.queue_envelopes_max),
            ("inbox_envelopes_max", self.inbox_envelopes_max),
            ("inbox_bytes_max", self.inbox_bytes_max),
            ("handshakes_max", self.handshakes_max),
            ("handshakes_per_address_max", self.handshakes_per_address_max),
            ("handshake_bytes_max", self.handshake_bytes_max),
        ];
        if let Some((setting, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return error(setting, "must be above zero");
        }
        let lasting = [
            ("handshake_timeout", self.handshake_timeout),
            ("heartbeat", self.heartbeat),
            ("backoff_min", self.backoff_min),
        ];
        if let Some((setting, _)) = lasting.iter().find(|(_, value)| value.is_zero()) {
            return error(setting, "must be above zero");
        }
        if self.silence_max / 2 < self.heartbeat {
            return error("silence_max", "must be twice the heartbeat at least");
        }
        if self.backoff_max < self.backoff_min {
            return error("backoff_max", "must not be below backoff_min");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_setting_out_of_bounds_is_named() {
        let ok = TcpOptions::default();
        assert_eq!(ok.validate(), Ok(()));
        let cases = [
            (TcpOptions { frame_bytes_max: 1023, ..ok.clone() }, "frame_bytes_max"),
            (
                TcpOptions { frame_bytes_max: 1 << 32, queue_bytes_max: 1 << 40, ..ok.clone() },
                "frame_bytes_max",
            ),
            (TcpOptions { queue_bytes_max: 15 << 20, ..ok.clone() }, "queue_bytes_max"),
            (TcpOptions { queue_envelopes_max: 0, ..ok.clone() }, "queue_envelopes_max"),
            (TcpOptions { inbox_envelopes_max: 0, ..ok.clone() }, "inbox_envelopes_max"),
            (TcpOptions { inbox_bytes_max: 0, ..ok.clone() }, "inbox_bytes_max"),
            (TcpOptions { handshakes_max: 0, ..ok.clone() }, "handshakes_max"),
            (TcpOptions { handshakes_per_address_max: 0, ..ok.clone() }, "handshakes_per_address_max"),
            (TcpOptions { handshake_bytes_max: 0, ..ok.clone() }, "handshake_bytes_max"),
            (TcpOptions { handshake_timeout: Duration::ZERO, ..ok.clone() }, "handshake_timeout"),
            (TcpOptions { heartbeat: Duration::ZERO, ..ok.clone() }, "heartbeat"),
            (TcpOptions { backoff_min: Duration::ZERO, ..ok.clone() }, "backoff_min"),
            (TcpOptions { silence_max: Duration::from_millis(499), ..ok.clone() }, "silence_max"),
            (TcpOptions { backoff_max: Duration::from_millis(9), ..ok.clone() }, "backoff_max"),
        ];
        for (options, setting) in cases {
            assert_eq!(options.validate().map_err(|error| error.setting), Err(setting));
        }
    }
}
