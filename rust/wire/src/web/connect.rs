//! Errors of the Connect protocol, which are JSON.

use super::End;
use crate::grpc::{self, MetadataValue, code};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use http::{HeaderMap, StatusCode};
use std::fmt::Write;

/// Where gRPC carries `google.rpc.Status`; Connect has a place of its own for what is in it.
pub(super) const DETAILS: &str = "grpc-status-details-bin";

/// Name and HTTP status of the codes 1 to 16.
const CODES: [(&str, u16); 16] = [
    ("canceled", 499),
    ("unknown", 500),
    ("invalid_argument", 400),
    ("deadline_exceeded", 504),
    ("not_found", 404),
    ("already_exists", 409),
    ("permission_denied", 403),
    ("resource_exhausted", 429),
    ("failed_precondition", 400),
    ("aborted", 409),
    ("out_of_range", 400),
    ("unimplemented", 501),
    ("internal", 500),
    ("unavailable", 503),
    ("data_loss", 500),
    ("unauthenticated", 401),
];

fn of_code(status: u32) -> (&'static str, u16) {
    let index = usize::try_from(status)
        .ok()
        .and_then(|code| code.checked_sub(1));
    let found = index.and_then(|index| CODES.get(index));
    *found.unwrap_or(&CODES[code::UNKNOWN as usize - 1])
}

pub(super) fn http_status(status: u32) -> StatusCode {
    StatusCode::from_u16(of_code(status).1).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// The body of a unary answer that is an error.
pub(super) fn error(end: &End<'_>) -> String {
    let mut json = format!("{{\"code\":\"{}\"", of_code(end.status).0);
    if let Some(message) = end.message {
        json.push_str(",\"message\":");
        push_string(&mut json, message);
    }
    let details = grpc::metadata(&end.trailing)
        .into_iter()
        .find_map(|(name, value)| match value {
            MetadataValue::Binary(raw) if name == DETAILS => Some(raw),
            _ => None,
        });
    if let Some(details) = details {
        push_details(&mut json, &details);
    }
    json.push('}');
    json
}

/// The content of the envelope that ends a stream.
pub(super) fn end_of_stream(end: End<'_>) -> String {
    let mut json = String::from("{");
    if end.status != code::OK {
        json.push_str("\"error\":");
        json.push_str(&error(&end));
    }
    let mut metadata = end.trailing;
    metadata.remove(DETAILS);
    if !metadata.is_empty() {
        if json.len() > 1 {
            json.push(',');
        }
        push_metadata(&mut json, &metadata);
    }
    json.push('}');
    json
}

fn push_metadata(json: &mut String, metadata: &HeaderMap) {
    json.push_str("\"metadata\":{");
    for (position, name) in metadata.keys().enumerate() {
        if position > 0 {
            json.push(',');
        }
        push_string(json, name.as_str());
        json.push_str(":[");
        for (position, value) in metadata.get_all(name).iter().enumerate() {
            if position > 0 {
                json.push(',');
            }
            push_string(json, &String::from_utf8_lossy(value.as_bytes()));
        }
        json.push(']');
    }
    json.push('}');
}

/// The `details` of a `google.rpc.Status`: field 3, `google.protobuf.Any`.
fn push_details(json: &mut String, status: &[u8]) {
    let mut separator = ",\"details\":[";
    for (number, any) in Fields(status) {
        if number != 3 {
            continue;
        }
        let (mut type_url, mut value) = (&b""[..], &b""[..]);
        for (number, content) in Fields(any) {
            match number {
                1 => type_url = content,
                2 => value = content,
                _ => {}
            }
        }
        let type_url = String::from_utf8_lossy(type_url);
        let name = type_url.rsplit('/').next().unwrap_or_default();
        json.push_str(separator);
        separator = ",";
        json.push_str("{\"type\":");
        push_string(json, name);
        json.push_str(",\"value\":\"");
        STANDARD_NO_PAD.encode_string(value, json);
        json.push_str("\"}");
    }
    if separator == "," {
        json.push(']');
    }
}

/// The length-delimited fields of a protobuf message, until it ends or breaks off.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = (u64, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let tag = self.varint()?;
            let size = match tag & 7 {
                0 => {
                    self.varint()?;
                    continue;
                }
                1 => 8,
                2 => usize::try_from(self.varint()?).ok()?,
                5 => 4,
                _ => return None,
            };
            let (content, rest) = self.0.split_at_checked(size)?;
            self.0 = rest;
            if tag & 7 == 2 {
                return Some((tag >> 3, content));
            }
        }
    }
}

impl Fields<'_> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}

fn push_string(json: &mut String, text: &str) {
    json.push('"');
    for character in text.chars() {
        match character {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            '\n' => json.push_str("\\n"),
            control if control < ' ' => {
                // Writing to a String does not fail.
                let _ = write!(json, "\\u{:04x}", u32::from(control));
            }
            other => json.push(other),
        }
    }
    json.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn an_error_is_json_with_its_details() {
        // Status{code: 5, message: "m", details: [Any{type_url: "t/a.B", value: [8, 1]}]}
        let status = b"\x08\x05\x12\x01m\x1a\x0b\x0a\x05t/a.B\x12\x02\x08\x01";
        let mut trailing = HeaderMap::new();
        let value = MetadataValue::Binary(status.to_vec());
        grpc::append_metadata(&mut trailing, DETAILS, &value).unwrap();
        trailing.insert("x-a", HeaderValue::from_static("b"));
        let end = End {
            status: 5,
            message: Some("no \"user\"\n\u{1}\u{e9}"),
            trailing,
        };
        let expected = "{\"code\":\"not_found\",\"message\":\"no \\\"user\\\"\\n\\u0001\u{e9}\",\
            \"details\":[{\"type\":\"a.B\",\"value\":\"CAE\"}]}";
        assert_eq!(error(&end), expected);
        assert_eq!(
            end_of_stream(end),
            format!("{{\"error\":{expected},\"metadata\":{{\"x-a\":[\"b\"]}}}}")
        );
    }

    #[test]
    fn damaged_details_are_left_out() {
        for damaged in [
            &b"\x1a"[..],
            b"\x1a\x05\x0a",
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        ] {
            let mut json = String::new();
            push_details(&mut json, damaged);
            assert_eq!(json, "");
        }
    }

    #[test]
    fn codes_that_grpc_does_not_define_are_unknown() {
        for status in [0, 17, u32::MAX] {
            assert_eq!(of_code(status), ("unknown", 500));
        }
        assert_eq!(of_code(16), ("unauthenticated", 401));
    }
}
