//! A tokio runtime for Synod replicas: Node and its builder.
