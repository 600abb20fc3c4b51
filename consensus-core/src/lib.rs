//! Traits and vocabulary of the Synod consensus crates: protocol, storage, transport, state machine.
