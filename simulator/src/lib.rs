//! Deterministic simulation of Synod replicas.
