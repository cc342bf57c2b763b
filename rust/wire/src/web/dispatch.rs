//! From the head of a request to a call, or to the answer that it cannot be one.

use super::origin::{self, Grant};
use super::{Dialect, End, Protocol, WebConfig, Whole};
use crate::compress::{self, Encoding};
use crate::grpc::{self, Violation, code};
use crate::stats::{CallTable, Running};
use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use std::time::Duration;

/// What GET carries; padding is optional.
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Headers of the protocols: they are no metadata.
const PROTOCOL_HEADERS: [&str; 7] = [
    "accept-encoding",
    "connect-accept-encoding",
    "connect-content-encoding",
    "connect-protocol-version",
    "connect-timeout-ms",
    "content-encoding",
    "x-grpc-web",
];

const ACCEPT_POST: HeaderValue = HeaderValue::from_static(
    "application/grpc, application/grpc-web, application/grpc-web+proto, application/grpc-web+json, \
     application/grpc-web-text, application/grpc-web-text+proto, application/proto, application/json, \
     application/connect+proto, application/connect+json",
);

/// A request that is a call.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) index: u32,
    pub(crate) method: Running,
    pub(crate) timeout: Option<Duration>,
    pub(crate) dialect: Dialect,
}

#[derive(Debug)]
pub(crate) enum Admission {
    Call(Box<Admitted>),
    Answer(Box<Whole>),
}

/// Decides about a request by its head; takes from `headers` what is the protocol's.
pub(crate) fn admit(
    config: &WebConfig,
    compression: Option<Encoding>,
    table: &CallTable,
    verb: &Method,
    target: &str,
    headers: &mut HeaderMap,
) -> Admission {
    if verb == Method::OPTIONS && origin::is_preflight(headers) {
        return answer(origin::preflight(config, headers));
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let found = table.find(path);
    let is_safe = found
        .as_ref()
        .is_some_and(|(index, _)| config.safe.contains(index));
    let dialect = match *verb {
        Method::POST => headers
            .get(header::CONTENT_TYPE)
            .and_then(|value| Dialect::of(value.as_bytes())),
        Method::GET if is_safe => of_query(query),
        _ => return answer(wrong_verb(is_safe)),
    };
    let Some(mut dialect) = dialect else {
        return answer(unsupported());
    };
    dialect.origin = Grant::of(config, headers);
    let Some((index, method)) = found else {
        let why = Violation::new(
            code::UNIMPLEMENTED,
            format!("method {path} is not served here"),
        );
        return answer(dialect.whole(None, HeaderMap::new(), End::from(&why)));
    };
    let fits = match dialect.protocol {
        Protocol::GrpcWeb | Protocol::GrpcWebText => true,
        Protocol::ConnectUnary => config.unary.contains(&index),
        Protocol::ConnectStream => !config.unary.contains(&index),
    };
    if !fits {
        return answer(unsupported());
    }
    let begun = if verb == Method::GET {
        take_query(&mut dialect, query)
    } else {
        Ok(())
    };
    let timeout = begun.and_then(|()| read_head(&mut dialect, headers));
    let method = Running::new(method, headers);
    let accepted = headers.remove(accept_header(dialect.protocol));
    dialect.outbound = compression.filter(|encoding| {
        let accepted = accepted.as_ref().map(HeaderValue::as_bytes);
        accepted.is_some_and(|accepted| encoding.is_accepted_by(accepted))
    });
    if let Some(accepted) = accepted {
        // Where a handler that chooses a compression looks, whatever the dialect.
        headers.insert(compress::ACCEPT_ENCODING, accepted);
    }
    for name in PROTOCOL_HEADERS {
        headers.remove(name);
    }
    match timeout {
        Ok(timeout) => Admission::Call(Box::new(Admitted {
            index,
            method,
            timeout,
            dialect,
        })),
        Err(why) => answer(dialect.whole(None, HeaderMap::new(), End::from(&why))),
    }
}

fn answer(whole: Whole) -> Admission {
    Admission::Answer(Box::new(whole))
}

/// Where an answer in this protocol says what compresses it, as a request does.
pub(super) fn encoding_header(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::GrpcWeb | Protocol::GrpcWebText => compress::ENCODING,
        Protocol::ConnectUnary => "content-encoding",
        Protocol::ConnectStream => "connect-content-encoding",
    }
}

fn accept_header(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::GrpcWeb | Protocol::GrpcWebText => compress::ACCEPT_ENCODING,
        Protocol::ConnectUnary => "accept-encoding",
        Protocol::ConnectStream => "connect-accept-encoding",
    }
}

fn encoding_named(name: &str) -> Result<Option<Encoding>, Violation> {
    Encoding::named(name).map_err(|why| Violation::new(code::UNIMPLEMENTED, why))
}

/// The timeout, if nothing in the head forbids to go on.
fn read_head(dialect: &mut Dialect, headers: &HeaderMap) -> Result<Option<Duration>, Violation> {
    let is_connect = matches!(
        dialect.protocol,
        Protocol::ConnectUnary | Protocol::ConnectStream
    );
    if let Some(version) = headers.get("connect-protocol-version")
        && is_connect
        && version != "1"
    {
        return Err(Violation::new(
            code::INVALID_ARGUMENT,
            format!("connect-protocol-version is {version:?}: only \"1\" is known"),
        ));
    }
    if let Some(name) = headers.get(encoding_header(dialect.protocol)) {
        dialect.inbound = encoding_named(&String::from_utf8_lossy(name.as_bytes()))?;
    }
    let timeout = if is_connect {
        "connect-timeout-ms"
    } else {
        "grpc-timeout"
    };
    let Some(value) = headers.get(timeout) else {
        return Ok(None);
    };
    let parsed = if is_connect {
        parse_millis(value.as_bytes())
    } else {
        grpc::parse_timeout(value.as_bytes())
    };
    parsed.map(Some).ok_or_else(|| {
        let status = if is_connect {
            code::INVALID_ARGUMENT
        } else {
            code::INTERNAL
        };
        Violation::new(status, format!("malformed {timeout}: {value:?}"))
    })
}

/// `Connect-Timeout-Ms`: at most ten digits.
fn parse_millis(value: &[u8]) -> Option<Duration> {
    if value.is_empty() || value.len() > 10 || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = std::str::from_utf8(value).ok()?;
    digits.parse().ok().map(Duration::from_millis)
}

fn unsupported() -> Whole {
    let mut answer = plain(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "this content-type is not served here for this path: see accept-post\n",
    );
    answer.headers.insert("accept-post", ACCEPT_POST);
    answer
}

fn wrong_verb(is_safe: bool) -> Whole {
    let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, "calls are POST requests\n");
    let verbs = if is_safe { "GET, POST" } else { "POST" };
    answer
        .headers
        .insert(header::ALLOW, HeaderValue::from_static(verbs));
    answer
}

fn plain(status: StatusCode, text: &'static str) -> Whole {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Whole {
        status,
        headers,
        body: Bytes::from_static(text.as_bytes()),
    }
}

fn pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

fn of_query(query: &str) -> Option<Dialect> {
    match pairs(query).find(|(name, _)| *name == "encoding")?.1 {
        "json" => Dialect::of(b"application/json"),
        "proto" => Dialect::of(b"application/proto"),
        _ => None,
    }
}

/// Takes the request from the query of a GET.
fn take_query(dialect: &mut Dialect, query: &str) -> Result<(), Violation> {
    let refuse = |why: String| Err(Violation::new(code::INVALID_ARGUMENT, why));
    let (mut message, mut is_base64) = (None, false);
    for (name, value) in pairs(query) {
        match name {
            "message" => message = Some(value),
            "base64" => is_base64 = value == "1",
            "connect" if value != "v1" => {
                return refuse(format!("connect is {value:?}: only \"v1\" is known"));
            }
            "compression" if !value.is_empty() => dialect.inbound = encoding_named(value)?,
            _ => {}
        }
    }
    let Some(message) = message else {
        return refuse("the query has no message".into());
    };
    let Some(unescaped) = unescape(message) else {
        return refuse("the message has a malformed percent escape".into());
    };
    dialect.body = if is_base64 {
        match URL_SAFE.decode(&unescaped) {
            Ok(raw) => BytesMut::from(&raw[..]),
            Err(error) => return refuse(format!("the message is no base64: {error}")),
        }
    } else {
        BytesMut::from(&unescaped[..])
    };
    Ok(())
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut plain = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        plain.push(match byte {
            b'+' => b' ',
            b'%' => {
                let high = char::from(bytes.next()?).to_digit(16)?;
                let low = char::from(bytes.next()?).to_digit(16)?;
                u8::try_from(high * 16 + low).ok()?
            }
            other => other,
        });
    }
    Some(plain)
}
