//! Tests over the workspace as a whole: which room may see which, whether the documents name what is there,
//! and whether the example of the README compiles and runs.

pub mod layers;

// The example of the README, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
