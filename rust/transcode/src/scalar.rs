//! Scalar values from their text to wire bytes, without tags.
//!
//! Each function tells whether the value is its type's default, which a field without presence
//! leaves out.

use crate::base64;
use crate::error::{Error, ErrorKind, Result, shorten};
use crate::number;
use crate::pool::{Enum, Form, Kind, Pool};
use crate::time;
use crate::wire::{close, open, put_bytes, put_varint, zigzag};

/// A number of any numeric kind; `quoted` ones may also be `NaN` and the infinities.
pub(crate) fn put_number(out: &mut Vec<u8>, kind: Kind, text: &str, quoted: bool) -> Result<bool> {
    match kind {
        Kind::Double | Kind::Float => put_float(out, kind, text, quoted),
        _ => put_integer(out, kind, text),
    }
}

fn put_float(out: &mut Vec<u8>, kind: Kind, text: &str, quoted: bool) -> Result<bool> {
    let value = match text {
        "NaN" if quoted => f64::NAN,
        "Infinity" if quoted => f64::INFINITY,
        "-Infinity" if quoted => f64::NEG_INFINITY,
        _ => number::float(text)?,
    };
    if kind == Kind::Double {
        out.extend_from_slice(&value.to_le_bytes());
    } else {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "rounding is what float means"
        )]
        let rounded = value as f32;
        if value.is_finite() && rounded.is_infinite() {
            return Err(out_of_range(text, "float"));
        }
        out.extend_from_slice(&rounded.to_le_bytes());
    }
    // Negative zero is a value of its own.
    Ok(value.to_bits() == 0)
}

fn put_integer(out: &mut Vec<u8>, kind: Kind, text: &str) -> Result<bool> {
    let value = number::integer(text)?;
    let type_name = match kind {
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => "a 32-bit integer",
        Kind::Uint32 | Kind::Fixed32 => "an unsigned 32-bit integer",
        Kind::Uint64 | Kind::Fixed64 => "an unsigned 64-bit integer",
        _ => "a 64-bit integer",
    };
    let fail = |_| out_of_range(text, type_name);
    match kind {
        Kind::Int32 => put_varint(out, sign_extend(i32::try_from(value).map_err(fail)?)),
        Kind::Sint32 => {
            // Zigzag of a small number is the same at either width.
            put_varint(out, zigzag(i32::try_from(value).map_err(fail)?.into()));
        }
        Kind::Sfixed32 => {
            out.extend_from_slice(&i32::try_from(value).map_err(fail)?.to_le_bytes());
        }
        Kind::Uint32 => put_varint(out, u32::try_from(value).map_err(fail)?.into()),
        Kind::Fixed32 => out.extend_from_slice(&u32::try_from(value).map_err(fail)?.to_le_bytes()),
        Kind::Uint64 => put_varint(out, u64::try_from(value).map_err(fail)?),
        Kind::Fixed64 => out.extend_from_slice(&u64::try_from(value).map_err(fail)?.to_le_bytes()),
        Kind::Sint64 => put_varint(out, zigzag(i64::try_from(value).map_err(fail)?)),
        Kind::Sfixed64 => {
            out.extend_from_slice(&i64::try_from(value).map_err(fail)?.to_le_bytes());
        }
        _ => put_varint(out, i64::try_from(value).map_err(fail)?.cast_unsigned()),
    }
    Ok(value == 0)
}

/// An enum's value by its name or number.
pub(crate) fn put_enum(out: &mut Vec<u8>, enumeration: &Enum, text: &str) -> Result<bool> {
    let unknown = || {
        let reason = format!("{} has no value {:?}", enumeration.full_name, shorten(text));
        Error::new(ErrorKind::UnknownValue, reason)
    };
    let number = match enumeration.number(text) {
        Some(number) => number,
        None if number::is_number(text) => {
            let number = i32::try_from(number::integer(text)?)
                .map_err(|_| out_of_range(text, "an enum's number"))?;
            if enumeration.closed && enumeration.quoted_name(number).is_none() {
                return Err(unknown());
            }
            number
        }
        None => return Err(unknown()),
    };
    put_varint(out, sign_extend(number));
    Ok(number == 0)
}

/// Bytes from their base64.
pub(crate) fn put_base64(out: &mut Vec<u8>, text: &str) -> Result<bool> {
    let start = open(out);
    if base64::decode(out, text.as_bytes()).is_none() {
        return Err(Error::new(ErrorKind::WrongType, "expected bytes as base64"));
    }
    let is_empty = out.len() == start;
    close(out, start);
    Ok(is_empty)
}

/// A value that comes as bare text: a map's key, a path variable, a query parameter.
pub(crate) fn put_text(out: &mut Vec<u8>, pool: &Pool, kind: Kind, text: &str) -> Result<bool> {
    match kind {
        Kind::String => {
            put_bytes(out, text.as_bytes());
            Ok(text.is_empty())
        }
        Kind::Bytes => put_base64(out, text),
        Kind::Bool => {
            let value = match text {
                "true" => 1,
                "false" => 0,
                _ => {
                    let reason = format!("expected true or false, got {:?}", shorten(text));
                    return Err(Error::new(ErrorKind::WrongType, reason));
                }
            };
            out.push(value);
            Ok(value == 0)
        }
        Kind::Enum(index) => put_enum(out, pool.enumeration(index), text),
        Kind::Message(index) => {
            let start = open(out);
            put_known_text(out, pool, index, text)?;
            close(out, start);
            Ok(false)
        }
        Kind::Group => Err(Error::new(
            ErrorKind::Unsupported,
            "groups are not supported",
        )),
        _ => put_number(out, kind, text, true),
    }
}

/// Whether [`put_text`] can take a value of this kind.
pub(crate) fn has_text(pool: &Pool, kind: Kind) -> bool {
    match kind {
        Kind::Message(index) => matches!(
            pool.message(index).form,
            Form::Wrapper | Form::Timestamp | Form::Duration | Form::FieldMask
        ),
        Kind::Group => false,
        _ => true,
    }
}

/// The content of a well-known message whose JSON is a scalar.
fn put_known_text(out: &mut Vec<u8>, pool: &Pool, index: u32, text: &str) -> Result<()> {
    let message = pool.message(index);
    match message.form {
        Form::Timestamp => put_time(out, time::parse_timestamp(text)?),
        Form::Duration => put_time(out, time::parse_duration(text)?),
        Form::FieldMask => put_field_mask(out, text)?,
        Form::Wrapper => {
            let field = &message.fields[0];
            let start = out.len();
            field.tag.put(out);
            if put_text(out, pool, field.kind, text)? {
                out.truncate(start);
            }
        }
        _ => {
            let reason = format!("{} cannot be a parameter", message.full_name);
            return Err(Error::new(ErrorKind::WrongType, reason));
        }
    }
    Ok(())
}

/// The fields that `Timestamp` and `Duration` share.
pub(crate) fn put_time(out: &mut Vec<u8>, (seconds, nanos): (i64, i32)) {
    if seconds != 0 {
        out.push(0x08);
        put_varint(out, seconds.cast_unsigned());
    }
    if nanos != 0 {
        out.push(0x10);
        put_varint(out, sign_extend(nanos));
    }
}

/// The paths of a field mask, from `fooBar,baz` to `foo_bar` and `baz`.
pub(crate) fn put_field_mask(out: &mut Vec<u8>, text: &str) -> Result<()> {
    for path in text.split(',').filter(|_| !text.is_empty()) {
        out.push(0x0a);
        let start = open(out);
        for &byte in path.as_bytes() {
            if byte == b'_' {
                let reason = format!("the path {:?} must be in lowerCamelCase", shorten(path));
                return Err(Error::new(ErrorKind::WrongType, reason));
            }
            if byte.is_ascii_uppercase() {
                out.push(b'_');
            }
            out.push(byte.to_ascii_lowercase());
        }
        close(out, start);
    }
    Ok(())
}

/// A negative 32-bit number is a 64-bit one on the wire.
fn sign_extend(value: i32) -> u64 {
    i64::from(value).cast_unsigned()
}

fn out_of_range(text: &str, type_name: &str) -> Error {
    let reason = format!("{} is out of range of {type_name}", shorten(text));
    Error::new(ErrorKind::OutOfRange, reason)
}
