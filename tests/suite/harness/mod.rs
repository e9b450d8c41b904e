//! The harness keeps its own promises; a test is worth no more than what it stands on.

mod env;
mod own_servers;
mod pictures;
mod program;
mod proxy;
