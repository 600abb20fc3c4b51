//! Real processes, and a resource that they change.

pub(crate) mod members;
pub(crate) mod register;
