//! Benches and side-by-side comparison of Synod protocols.
