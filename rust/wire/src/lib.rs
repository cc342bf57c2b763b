//! HTTP/2, HTTP/1.1 and gRPC connections without I/O.
//!
//! Bytes and time go in, events and bytes come out: nothing here opens a
//! socket, reads a clock or wakes a task. Every machine follows one order:
//! `handle_input` (or `handle_eof`, `handle_timeout`), then `poll_event` until
//! it answers `None`, then the caller's commands, then the output until there
//! is none, then `poll_event` again, since room for output is room for more
//! work. Times are offsets from one epoch that the caller chooses.

pub mod accepted;
pub mod client;
pub mod compress;
mod credit;
pub mod grpc;
mod guard;
pub mod http1;
pub mod keepalive;
mod message;
mod outbound;
mod pipe;
pub mod refusals;
pub mod server;
pub mod stats;
pub mod web;

pub use guard::{FloodLimits, Rate};
pub use message::{HttpEvent, HttpLimits, HttpRequest, Problem};
