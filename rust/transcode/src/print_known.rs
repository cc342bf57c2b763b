//! The well-known types that have a JSON form of their own, into JSON text.

use crate::error::{Error, ErrorKind, Result, shorten};
use crate::pool::{Form, Kind, Message};
use crate::print::{Printer, last_of_each, low_i32, read_entry};
use crate::text::{put_float, put_string};
use crate::time;
use crate::wire::{self, Raw, WireReader, invalid};

// What a struct's entries and values are to the reader of entries, which only asks for the
// wire type of a message.
const SOME_MESSAGE: Kind = Kind::Bytes;

impl<'p, 'm> Printer<'p, 'm> {
    pub(crate) fn known(&mut self, message: &'p Message, bytes: &'m [u8]) -> Result<()> {
        match message.form {
            Form::Regular => self.fields(message, bytes, &mut true),
            Form::Any => self.any(bytes),
            Form::Struct => self.structure(bytes),
            Form::ListValue => self.list_value(bytes),
            Form::Value => self.any_value(bytes),
            Form::Wrapper => self.member(message, bytes, 0),
            Form::Timestamp => {
                let (seconds, nanos) = read_time(bytes)?;
                time::put_timestamp(&mut self.out, seconds, nanos)
            }
            Form::Duration => {
                let (seconds, nanos) = read_time(bytes)?;
                time::put_duration(&mut self.out, seconds, nanos)
            }
            Form::FieldMask => self.field_mask(bytes),
        }
    }

    fn any(&mut self, bytes: &'m [u8]) -> Result<()> {
        let (mut type_url, mut content): (&[u8], &[u8]) = (&[], &[]);
        let mut reader = WireReader::new(bytes);
        while let Some((number, _, raw)) = reader.field()? {
            match (number, raw) {
                (1, Raw::Bytes(bytes)) => type_url = bytes,
                (2, Raw::Bytes(bytes)) => content = bytes,
                _ => {}
            }
        }
        if type_url.is_empty() && content.is_empty() {
            self.out.extend_from_slice(b"{}");
            return Ok(());
        }
        let type_url = std::str::from_utf8(type_url).map_err(|_| invalid("a type is not UTF-8"))?;
        let name = type_url.rsplit_once('/').map_or(type_url, |(_, name)| name);
        let index = self.pool.find(name).ok_or_else(|| {
            let reason = format!("unknown message type {:?}", shorten(type_url));
            Error::new(ErrorKind::Unprintable, reason)
        })?;
        self.out.extend_from_slice(b"{\"@type\":");
        put_string(&mut self.out, type_url);
        let message = self.pool.message(index);
        if message.form == Form::Regular {
            self.fields(message, content, &mut false)?;
        } else {
            self.out.extend_from_slice(b",\"value\":");
            self.message(index, content)?;
        }
        self.out.push(b'}');
        Ok(())
    }

    fn field_mask(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.push(b'"');
        let mut is_first = true;
        let mut reader = WireReader::new(bytes);
        while let Some((number, _, raw)) = reader.field()? {
            let (1, Raw::Bytes(path)) = (number, raw) else {
                continue;
            };
            if !std::mem::replace(&mut is_first, false) {
                self.out.push(b',');
            }
            let camel = camel_path(path).ok_or_else(|| {
                let path = String::from_utf8_lossy(path);
                let reason = format!("the path {:?} has no lowerCamelCase", shorten(&path));
                Error::new(ErrorKind::Unprintable, reason)
            })?;
            self.out.extend_from_slice(&camel);
        }
        self.out.push(b'"');
        Ok(())
    }

    fn structure(&mut self, bytes: &'m [u8]) -> Result<()> {
        let mut pairs = Vec::new();
        let mut reader = WireReader::new(bytes);
        while let Some((number, _, raw)) = reader.field()? {
            if let (1, Raw::Bytes(entry)) = (number, raw) {
                pairs.push(read_entry(Kind::String, SOME_MESSAGE, entry)?);
            }
        }
        last_of_each(Kind::String, &mut pairs);
        self.out.push(b'{');
        for (at, pair) in pairs.into_iter().enumerate() {
            if at > 0 {
                self.out.push(b',');
            }
            if let (Raw::Bytes(key), Raw::Bytes(value)) = pair {
                self.string(key)?;
                self.out.push(b':');
                self.any_value(value)?;
            }
        }
        self.out.push(b'}');
        Ok(())
    }

    fn list_value(&mut self, bytes: &'m [u8]) -> Result<()> {
        self.out.push(b'[');
        let mut is_first = true;
        let mut reader = WireReader::new(bytes);
        while let Some((number, _, raw)) = reader.field()? {
            if let (1, Raw::Bytes(item)) = (number, raw) {
                if !std::mem::replace(&mut is_first, false) {
                    self.out.push(b',');
                }
                self.any_value(item)?;
            }
        }
        self.out.push(b']');
        Ok(())
    }

    /// A `Value`; one without a kind is null.
    fn any_value(&mut self, bytes: &'m [u8]) -> Result<()> {
        let mut kind = (1, Raw::Number(0));
        // A struct or list that came in parts.
        let mut whole = Vec::new();
        let mut reader = WireReader::new(bytes);
        while let Some((number, wire, raw)) = reader.field()? {
            let expected = match number {
                1 | 4 => wire::VARINT,
                2 => wire::FIXED64,
                3 | 5 | 6 => wire::BYTES,
                _ => continue,
            };
            if wire != expected {
                continue;
            }
            match (kind, raw) {
                ((before, Raw::Bytes(part)), Raw::Bytes(next))
                    if before == number && number > 3 =>
                {
                    if whole.is_empty() {
                        whole.extend_from_slice(part);
                    }
                    whole.extend_from_slice(next);
                }
                _ => whole.clear(),
            }
            kind = (number, raw);
        }
        if whole.is_empty() {
            return self.descend(|printer| printer.value_of_kind(kind.0, kind.1));
        }
        let mut inner = self.fork();
        inner.descend(|printer| printer.value_of_kind(kind.0, Raw::Bytes(&whole)))?;
        self.out = inner.out;
        Ok(())
    }

    fn value_of_kind(&mut self, number: u32, raw: Raw<'m>) -> Result<()> {
        match (number, raw) {
            (2, Raw::Number(bits)) => {
                let value = f64::from_bits(bits);
                if !value.is_finite() {
                    let reason = format!("{value} is no number of a google.protobuf.Value");
                    return Err(Error::new(ErrorKind::Unprintable, reason));
                }
                put_float(&mut self.out, value, &value);
                Ok(())
            }
            (3, Raw::Bytes(text)) => self.string(text),
            (4, raw) => self.value(Kind::Bool, raw),
            (5, Raw::Bytes(content)) => self.structure(content),
            (6, Raw::Bytes(content)) => self.list_value(content),
            _ => {
                self.out.extend_from_slice(b"null");
                Ok(())
            }
        }
    }
}

/// The fields that `Timestamp` and `Duration` share.
fn read_time(bytes: &[u8]) -> Result<(i64, i32)> {
    let mut time = (0, 0);
    let mut reader = WireReader::new(bytes);
    while let Some((number, wire, raw)) = reader.field()? {
        match (number, wire, raw) {
            (1, wire::VARINT, Raw::Number(bits)) => time.0 = bits.cast_signed(),
            (2, wire::VARINT, Raw::Number(bits)) => time.1 = low_i32(bits),
            _ => {}
        }
    }
    Ok(time)
}

/// `foo_bar` as `fooBar`; `None` if that could not be undone.
fn camel_path(path: &[u8]) -> Option<Vec<u8>> {
    std::str::from_utf8(path).ok()?;
    let mut camel = Vec::with_capacity(path.len());
    let mut after_underscore = false;
    for &byte in path {
        match byte {
            b'A'..=b'Z' | 0..0x20 | b'"' | b'\\' => return None,
            b'a'..=b'z' if after_underscore => camel.push(byte.to_ascii_uppercase()),
            _ if after_underscore => return None,
            b'_' => {}
            _ => camel.push(byte),
        }
        after_underscore = byte == b'_';
    }
    (!after_underscore).then_some(camel)
}
