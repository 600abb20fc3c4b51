//! The Raft consensus protocol as a sans-IO state machine.
