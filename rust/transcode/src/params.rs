//! Path variables and query parameters into wire bytes.

use std::borrow::Cow;

use crate::error::{Error, ErrorKind, Result, shorten};
use crate::path::{Decoding, decode};
use crate::pool::{Form, Message, Pool, Shape};
use crate::scalar;
use crate::wire::{Raw, WireReader, put_bytes};

/// One parameter: a field, by its index at each level, and the value's text.
pub(crate) struct Param<'a> {
    pub(crate) field: Cow<'a, [usize]>,
    pub(crate) name: Cow<'a, str>,
    pub(crate) text: Cow<'a, str>,
}

/// The parameters of a query string.
pub(crate) fn parse_query<'a>(
    pool: &Pool,
    message: &Message,
    query: &'a str,
    max_depth: usize,
    params: &mut Vec<Param<'a>>,
) -> Result<()> {
    for piece in query.split('&').filter(|piece| !piece.is_empty()) {
        let (name, text) = piece.split_once('=').unwrap_or((piece, ""));
        let name = decode_piece(name)?;
        let text = decode_piece(text).map_err(|error| error.in_field(&name))?;
        let field = resolve(pool, message, &name, max_depth)?;
        params.push(Param {
            field: field.into(),
            name,
            text,
        });
    }
    Ok(())
}

/// The indices of a field path such as `a.b`, by either name of each field.
pub(crate) fn resolve(
    pool: &Pool,
    message: &Message,
    name: &str,
    max_depth: usize,
) -> Result<Vec<usize>> {
    let fail = |kind, reason: String| Err(Error::new(kind, reason).in_field(name));
    let mut message = message;
    let mut indices = Vec::new();
    let mut parts = name.split('.').peekable();
    while let Some(part) = parts.next() {
        let Some(index) = message.by_name(part) else {
            let reason = format!("{} has no field {:?}", message.full_name, shorten(part));
            return fail(ErrorKind::UnknownField, reason);
        };
        if indices.len() == max_depth {
            return fail(
                ErrorKind::TooDeep,
                format!("nested deeper than {max_depth} levels"),
            );
        }
        indices.push(index);
        let field = &message.fields[index];
        let inner = field.kind.message().map(|index| pool.message(index));
        match inner {
            // Another part follows: it names a field of this message.
            Some(inner) if parts.peek().is_some() => {
                if field.is_repeated() || inner.form != Form::Regular {
                    let reason = format!("the fields inside {part:?} cannot be parameters");
                    return fail(ErrorKind::UnknownField, reason);
                }
                message = inner;
            }
            _ if parts.peek().is_some() => {
                return fail(ErrorKind::UnknownField, format!("{part:?} has no fields"));
            }
            _ if field.shape == Shape::Map || !scalar::has_text(pool, field.kind) => {
                let reason = "a field of this type cannot be a parameter".to_owned();
                return fail(ErrorKind::WrongType, reason);
            }
            _ => {}
        }
    }
    Ok(indices)
}

/// Write parameters as fields of the message whose bytes begin at `start`.
///
/// `params` are sorted by field; those before `depth` are the message's own place. `body_field` is
/// what the body has set already. A message that parameters add to is written anew as a whole:
/// protobuf would merge its parts, but not every reader does.
pub(crate) fn put(
    out: &mut Vec<u8>,
    start: usize,
    pool: &Pool,
    message: &Message,
    params: &[Param<'_>],
    depth: usize,
    body_field: Option<usize>,
) -> Result<()> {
    let oneof_of = |index: usize| message.fields[index].oneof;
    let mut oneofs = Vec::from_iter(body_field.and_then(oneof_of));
    for group in params.chunk_by(|a, b| a.field[depth] == b.field[depth]) {
        let [param, more @ ..] = group else { continue };
        let index = param.field[depth];
        let field = &message.fields[index];
        if let Some(oneof) = field.oneof {
            if oneofs.contains(&oneof) {
                let name = &message.oneofs[usize::from(oneof)];
                let reason = format!("another field of the oneof {name:?} is given, too");
                return Err(Error::new(ErrorKind::OneofConflict, reason).in_field(&param.name));
            }
            oneofs.push(oneof);
        }
        if let (Some(inner), true) = (field.kind.message(), param.field.len() > depth + 1) {
            let mut content = take(out, start, field.number)?;
            put(
                &mut content,
                0,
                pool,
                pool.message(inner),
                group,
                depth + 1,
                None,
            )?;
            field.tag.put(out);
            put_bytes(out, &content);
            continue;
        }
        if let (Some(second), false) = (more.first(), field.is_repeated()) {
            let error = Error::new(ErrorKind::DuplicateKey, "the field is given twice");
            return Err(error.in_field(&second.name));
        }
        for param in group {
            let before = out.len();
            field.tag.put(out);
            let is_default = scalar::put_text(out, pool, field.kind, &param.text)
                .map_err(|error| error.in_field(&param.name))?;
            if is_default && field.shape == Shape::Implicit {
                out.truncate(before);
            }
        }
    }
    Ok(())
}

/// Take a message field out of what is written: its content.
fn take(out: &mut Vec<u8>, start: usize, number: u32) -> Result<Vec<u8>> {
    let mut content = Vec::new();
    let mut at = start;
    loop {
        let mut reader = WireReader::new(&out[at..]);
        let Some((found, _, raw)) = reader.field()? else {
            return Ok(content);
        };
        let end = out.len() - reader.len();
        match raw {
            Raw::Bytes(part) if found == number => {
                content.extend_from_slice(part);
                out.drain(at..end);
            }
            _ => at = end,
        }
    }
}

fn decode_piece(raw: &str) -> Result<Cow<'_, str>> {
    if raw.contains(['%', '+']) {
        return decode(raw, Decoding::Query).map(Cow::Owned);
    }
    Ok(Cow::Borrowed(raw))
}
