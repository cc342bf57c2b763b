//! The HTTP/1.1 server connection, driven byte by byte and clock tick by clock tick.

#![allow(clippy::panic, clippy::unwrap_used, clippy::too_many_lines)]

mod exchange;
mod grammar;
mod properties;
mod time;

use bascule_wire::http1::Http1Connection;
use bascule_wire::{HttpEvent, HttpLimits, HttpRequest};
use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, StatusCode};
use std::time::Duration;

const START: Duration = Duration::from_secs(1000);

fn limits() -> HttpLimits {
    HttpLimits {
        max_body: 64,
        max_header_bytes: 512,
        max_headers: 8,
        ..HttpLimits::default()
    }
}

fn connection() -> Http1Connection {
    Http1Connection::new(limits(), START)
}

fn output(connection: &mut Http1Connection) -> String {
    let mut bytes = Vec::new();
    while let Some(piece) = connection.poll_output() {
        bytes.extend_from_slice(&piece);
    }
    String::from_utf8(bytes).unwrap()
}

fn request(connection: &mut Http1Connection) -> HttpRequest {
    match connection.poll_event() {
        Some(HttpEvent::Request(request)) => request,
        other => panic!("expected a request, got {other:?}"),
    }
}

fn answer(connection: &mut Http1Connection, stream: u32, body: &'static str) -> String {
    let body = Bytes::from_static(body.as_bytes());
    connection.respond(stream, StatusCode::OK, &HeaderMap::new(), body, START);
    output(connection)
}

/// What a request was read as, in one line, and whether the connection outlived it.
fn verdict(input: &str) -> String {
    let mut connection = connection();
    connection.handle_input(input.as_bytes(), START);
    let Some(event) = connection.poll_event() else {
        return "waiting".to_owned();
    };
    let HttpEvent::Request(request) = event else {
        return "reset".to_owned();
    };
    let answer = answer(&mut connection, request.stream, "");
    let fate = if answer.contains("connection: close") {
        ", close"
    } else {
        ""
    };
    if let Some(problem) = request.problem {
        return format!("{problem:?}{fate}");
    }
    let host = request.headers.get(HOST);
    let host = host.map_or("-", |host| host.to_str().unwrap());
    let body = String::from_utf8_lossy(&request.body);
    format!(
        "{} {} at {host} [{body}]{fate}",
        request.method, request.target
    )
}
