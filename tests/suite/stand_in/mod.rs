//! The provider stand-in must be as reliable as the tests that use it: it answers as documented, keeps its
//! books right, misbehaves as scripted, and the official SDKs run against it unchanged.

mod client;
mod dashscope;
mod faults;
mod limits;
mod openai;
mod program;
mod sdk;
