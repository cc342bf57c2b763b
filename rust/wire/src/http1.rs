//! HTTP/1.1 server connections (RFC 9112).
