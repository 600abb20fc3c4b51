//! Client histories and a linearizability checker.
