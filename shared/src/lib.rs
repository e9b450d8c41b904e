//! What producers and the worker both need, and nothing else.
//!
//! Admission rule: a thing belongs here if a producer written in Rust would need it to publish a task, to
//! predict its edit key or to read its event. It knows no database and no editor.
//!
//! A message goes through three shapes: [`wire::TaskMessage`] is what is on the wire,
//! [`task::Task`] is what validation makes of it, [`key::EditKey`] is what one picture with one edit is called.

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
