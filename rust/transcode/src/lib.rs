//! JSON to protobuf and back by descriptor, and google.api.http routes.
