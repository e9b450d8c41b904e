//! The Retouch worker: everything behind the program `retouch`.

pub mod blobs;
pub mod broker;
pub mod delay;
pub mod editor;
pub mod media;
pub mod sources;
pub mod store;
pub mod tls;
