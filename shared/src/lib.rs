//! The contract between producers and the worker, and nothing else.
//!
//! Admission rule: a thing belongs here if a producer written in Rust would need it to publish a task, to
//! predict its edit key or to read its event. It knows no database and no editor.
//!
//! A message takes three shapes: [`wire::TaskMessage`] on the wire, [`task::Task`] after validation,
//! [`key::EditKey`] for one picture with one edit.

pub mod amqp;
pub mod cancel;
pub mod client;
pub mod event;
pub mod key;
pub mod limits;
pub mod params;
pub mod publisher;
pub mod schema;
pub mod task;
pub mod topology;
pub mod wire;
