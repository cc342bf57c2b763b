//! JSON to protobuf and back by descriptor, and `google.api.http` routes.
//!
//! A [`Transcoder`] is compiled once from a serialized `FileDescriptorSet` into compact tables.
//! After that JSON text becomes protobuf wire bytes, and wire bytes become JSON text, in one pass
//! each: there is no tree of values in between. [`RouteTable`] is the matcher below it, usable
//! alone.
//!
//! The JSON is the mapping of proto3 as `google.protobuf.json_format` has it. Where that parser is
//! lenient by accident of its language, this one is strict: numbers in strings have JSON's
//! grammar, base64 has no stray characters, timestamps and durations their full documented form,
//! a number that overflows a float is out of range also in quotes, a field given by both of its
//! names is a duplicate, and an empty array is no message.

mod base64;
mod binding;
mod error;
mod json;
mod number;
mod params;
mod parse;
mod parse_known;
mod path;
mod pool;
mod print;
mod print_known;
mod routes;
mod scalar;
mod schema;
mod template;
#[cfg(test)]
mod tests;
mod text;
mod time;
mod transcoder;
mod wire;

pub use binding::Binding;
pub use error::{Error, ErrorKind, SchemaError};
pub use routes::{Found, Miss, RouteTable};
pub use transcoder::{Options, Transcoder};
