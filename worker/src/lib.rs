//! The Retouch worker: everything behind the program `retouch`.

mod activity;
pub mod app;
mod archive;
mod bill;
pub mod blobs;
pub mod broker;
pub mod cache;
pub mod cli;
mod coding;
pub mod config;
pub mod dead;
pub mod delay;
mod doctor;
mod edit;
pub mod editor;
mod events;
pub mod explain;
#[cfg(feature = "double")]
pub mod failpoint;
#[cfg(not(feature = "double"))]
mod failpoint;
mod http;
pub mod import;
mod intake;
mod lanes;
mod lease;
pub mod media;
pub mod metrics;
pub mod models;
mod outcome;
pub mod overview;
mod perform;
mod private;
mod replica;
pub mod routes;
pub mod sources;
pub mod store;
mod suspects;
mod sweep;
pub mod tls;
mod together;
pub mod trace;
mod wake;
mod words;
pub mod worker;
