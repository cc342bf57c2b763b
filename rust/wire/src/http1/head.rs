//! The head of a request: what it asks for, and how its body is framed.

use crate::message::Problem;
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

/// A request without its body.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) method: Method,
    /// Origin form, or `*`.
    pub(super) target: String,
    pub(super) headers: HeaderMap,
    pub(super) http10: bool,
    pub(super) keep_alive: bool,
    pub(super) expects_continue: bool,
    pub(super) framing: Framing,
}

/// How the end of a body is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// There is no body.
    Empty,
    /// The body has this many bytes, at least one.
    Length(usize),
    /// The body comes in chunks, the last of which is empty.
    Chunked,
}

impl Head {
    /// Stands in for a head that could not be read.
    pub(super) fn unknown() -> Self {
        Self {
            method: Method::GET,
            target: String::new(),
            headers: HeaderMap::new(),
            http10: false,
            keep_alive: false,
            expects_continue: false,
            framing: Framing::Empty,
        }
    }
}

/// Reads a whole head, the empty line at its end included.
pub(super) fn parse(block: &[u8], max_headers: usize) -> Result<Head, Problem> {
    let mut fields = vec![httparse::EMPTY_HEADER; max_headers];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(block) {
        Ok(httparse::Status::Complete(length)) if length == block.len() => {}
        Err(httparse::Error::TooManyHeaders) => return Err(Problem::HeadersTooLarge),
        _ => return Err(Problem::Malformed),
    }
    let (Some(method), Some(target), Some(version)) =
        (request.method, request.path, request.version)
    else {
        return Err(Problem::Malformed);
    };
    let http10 = version == 0;
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| Problem::Malformed)?;
    let mut headers = collect(request.headers)?;
    let host = single(&headers, &HOST)?;
    if host.map_or(!http10, |host| !is_authority(host)) {
        return Err(Problem::Malformed);
    }
    let (authority, target) = resolve(&method, target)?;
    if let Some(authority) = authority {
        // RFC 9112, 3.2.2: what the target says counts, not the field.
        headers.insert(HOST, authority);
    }
    let framing = framing(&headers, http10)?;
    Ok(Head {
        keep_alive: keeps_alive(&headers, http10),
        // RFC 9110, 10.1.1: to be ignored in HTTP/1.0, and without a body.
        expects_continue: !http10
            && framing != Framing::Empty
            && has_token(&headers, &EXPECT, b"100-continue"),
        method,
        target,
        headers,
        http10,
        framing,
    })
}

/// Whether this could have been meant as a request: there is a target or a version.
pub(super) fn resembles_request(bytes: &[u8]) -> bool {
    [&b" /"[..], b" HTTP/"]
        .iter()
        .any(|mark| bytes.windows(mark.len()).any(|part| part == *mark))
}

/// Checks a trailer section, the empty line at its end included. Its fields
/// are dropped, as RFC 9110, 6.5.1 allows: none may change how the request is
/// understood.
pub(super) fn check_trailers(block: &[u8], max_headers: usize) -> Result<(), Problem> {
    let mut fields = vec![httparse::EMPTY_HEADER; max_headers];
    match httparse::parse_headers(block, &mut fields) {
        Ok(httparse::Status::Complete((length, fields))) if length == block.len() => {
            collect(fields).map(drop)
        }
        Err(httparse::Error::TooManyHeaders) => Err(Problem::HeadersTooLarge),
        _ => Err(Problem::Malformed),
    }
}

/// Whether `connection` among these fields names `close`.
pub(super) fn asks_to_close(headers: &HeaderMap) -> bool {
    has_token(headers, &CONNECTION, b"close")
}

fn collect(fields: &[httparse::Header<'_>]) -> Result<HeaderMap, Problem> {
    let mut headers = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Problem::Malformed)?;
        let value =
            HeaderValue::from_bytes(field.value.trim_ascii()).map_err(|_| Problem::Malformed)?;
        headers
            .try_append(name, value)
            .map_err(|_| Problem::HeadersTooLarge)?;
    }
    Ok(headers)
}

/// The value of a field that may come once at most.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a [u8]>, Problem> {
    let mut values = headers.get_all(name).iter();
    let first = values.next().map(HeaderValue::as_bytes);
    match values.next() {
        Some(_) => Err(Problem::Malformed),
        None => Ok(first),
    }
}

/// RFC 9112, 6.3, with the choices that leave one reading only: a length comes
/// alone and once, the only coding is `chunked`, and HTTP/1.0 has no codings.
fn framing(headers: &HeaderMap, http10: bool) -> Result<Framing, Problem> {
    let length = single(headers, &CONTENT_LENGTH)?;
    let coding = single(headers, &TRANSFER_ENCODING)?;
    match (length, coding) {
        (None, None) => Ok(Framing::Empty),
        (Some(length), None) => match decimal(length) {
            Some(0) => Ok(Framing::Empty),
            Some(length) => Ok(Framing::Length(length)),
            None => Err(Problem::Malformed),
        },
        (None, Some(coding)) if coding.eq_ignore_ascii_case(b"chunked") && !http10 => {
            Ok(Framing::Chunked)
        }
        (_, Some(_)) => Err(Problem::Malformed),
    }
}

/// Digits only; a number beyond all limits stays beyond them.
fn decimal(digits: &[u8]) -> Option<usize> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_usize, |number, byte| {
        byte.is_ascii_digit().then(|| {
            number
                .saturating_mul(10)
                .saturating_add(usize::from(byte - b'0'))
        })
    })
}

/// RFC 9112, 9.3.
fn keeps_alive(headers: &HeaderMap, http10: bool) -> bool {
    !asks_to_close(headers) && (!http10 || has_token(headers, &CONNECTION, b"keep-alive"))
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &[u8]) -> bool {
    headers
        .get_all(name)
        .iter()
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
        .any(|item| item.trim_ascii().eq_ignore_ascii_case(token))
}

/// RFC 9112, 3.2: the authority, where the target names one, and the target in
/// origin form or `*`.
fn resolve(method: &Method, target: &str) -> Result<(Option<HeaderValue>, String), Problem> {
    if method == Method::CONNECT || !target.bytes().all(is_of_target) {
        return Err(Problem::Malformed);
    }
    if target.starts_with('/') || (target == "*" && method == Method::OPTIONS) {
        return Ok((None, target.to_owned()));
    }
    let rest = without_scheme(target).ok_or(Problem::Malformed)?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if !is_authority(authority.as_bytes()) {
        return Err(Problem::Malformed);
    }
    let authority = HeaderValue::from_str(authority).map_err(|_| Problem::Malformed)?;
    let path = match path {
        "" if method == Method::OPTIONS => "*".to_owned(),
        path if path.starts_with('/') => path.to_owned(),
        query => format!("/{query}"),
    };
    Ok((Some(authority), path))
}

fn without_scheme(target: &str) -> Option<&str> {
    ["http://", "https://"].iter().find_map(|scheme| {
        let (head, rest) = target.split_at_checked(scheme.len())?;
        head.eq_ignore_ascii_case(scheme).then_some(rest)
    })
}

/// Printable ASCII without a fragment. Beyond RFC 3986 this takes what real
/// clients leave unencoded (`{ } | ^ " \`), as the HTTP/2 side does: the same
/// target must not be fine in one version and an error in the other.
fn is_of_target(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'#' | b'<' | b'>' | b'`')
}

/// `uri-host [ ":" port ]` of RFC 9112, 3.2, not empty and without user information.
fn is_authority(value: &[u8]) -> bool {
    let (host_is_fine, rest) = if let Some(inside) = value.strip_prefix(b"[") {
        let end = inside.iter().position(|&byte| byte == b']');
        let (address, rest) = inside.split_at(end.unwrap_or(0));
        let is_of_address = |&byte: &u8| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.');
        let fine = !address.is_empty() && address.iter().all(is_of_address);
        (fine, rest.strip_prefix(b"]").unwrap_or(rest))
    } else {
        let end = value.iter().position(|&byte| byte == b':');
        let (name, rest) = value.split_at(end.unwrap_or(value.len()));
        (
            !name.is_empty() && name.iter().all(|&byte| is_of_name(byte)),
            rest,
        )
    };
    let port_is_fine = match rest.split_first() {
        None => true,
        Some((b':', port)) => port.len() <= 5 && port.iter().all(u8::is_ascii_digit),
        Some(_) => false,
    };
    host_is_fine && port_is_fine
}

/// `reg-name` of RFC 3986, 3.2.2.
fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(&byte)
}
