//! The Retouch worker: everything behind the program `retouch`.

pub mod app;
mod archive;
pub mod blobs;
pub mod broker;
pub mod cli;
pub mod config;
pub mod dead;
pub mod delay;
mod edit;
pub mod editor;
mod events;
#[cfg(feature = "double")]
pub mod failpoint;
#[cfg(not(feature = "double"))]
mod failpoint;
mod http;
mod intake;
mod lanes;
mod lease;
pub mod media;
pub mod models;
mod outcome;
pub mod routes;
pub mod sources;
pub mod store;
mod suspects;
mod sweep;
pub mod tls;
mod wake;
pub mod worker;
