//! Dead letters for people: what a reason means, what sending letters again would come to, and sending them again.

pub mod advice;
mod gone;
mod letter;
mod preview;
mod send;

pub(crate) use letter::{payloads, shortened};
#[cfg(test)]
pub(crate) use preview::Paid;
pub(crate) use preview::{Preview, preview};
pub(crate) use send::{Sent, send};
