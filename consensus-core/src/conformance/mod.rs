//! Test suites for people who write their own storage or transport (feature `conformance`).
