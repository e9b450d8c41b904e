//! The harness keeps its own promises; a test is only as good as its harness.

mod env;
mod own_servers;
mod pictures;
mod program;
mod proxy;
