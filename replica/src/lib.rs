//! A sans-IO replica: binds a consensus protocol to storage effects, client sessions and a state machine.
