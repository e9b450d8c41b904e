//! The provider stand-in is worth the tests that rely on it: it answers as documented, keeps its books right, misbehaves as
//! told, and the official SDKs run against it unchanged.

mod client;
mod dashscope;
mod faults;
mod limits;
mod openai;
mod program;
mod sdk;
