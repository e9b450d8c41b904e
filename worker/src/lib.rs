//! The Retouch worker: everything behind the program `retouch`.

pub mod blobs;
pub mod broker;
pub mod editor;
pub mod media;
pub mod store;
pub mod tls;
