//! JSON text into protobuf wire bytes.

use std::borrow::Cow;
use std::collections::HashSet;

use crate::error::{Error, ErrorKind, Result, shorten};
use crate::json::{Reader, Token};
use crate::pool::{Field, Form, Kind, Message, Pool, Shape};
use crate::scalar;
use crate::wire::{close, open, put_bytes};

/// Messages in messages, below the outermost one, that a request may have: protobuf's own limit. A
/// `Struct` has three for each object, so it may come before the limit of the document's depth.
const MAX_NESTING: usize = 100;

/// Translates one document. A message is written as its content, without a length before it.
///
/// Recursion is bounded by the reader's limit of depth: only an object or array leads deeper.
pub(crate) struct Parser<'p, 'a> {
    pub(crate) pool: &'p Pool,
    pub(crate) reader: Reader<'a>,
    pub(crate) out: Vec<u8>,
    /// Whether fields that the schema has not are passed over.
    pub(crate) ignore_unknown: bool,
    nesting: usize,
}

impl<'p, 'a> Parser<'p, 'a> {
    pub(crate) fn new(pool: &'p Pool, document: &'a [u8], max_depth: usize) -> Result<Self> {
        let reader = Reader::new(document, max_depth)?;
        Ok(Self {
            pool,
            reader,
            out: Vec::with_capacity(document.len()),
            ignore_unknown: false,
            nesting: 0,
        })
    }

    /// The bytes, once the document has been checked to have ended.
    pub(crate) fn finish(mut self) -> Result<Vec<u8>> {
        self.reader.end()?;
        Ok(self.out)
    }

    /// Write a message as a value: with its length before it.
    pub(crate) fn nested(&mut self, write: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        if self.nesting == MAX_NESTING {
            let reason = format!("messages are nested deeper than {MAX_NESTING} levels");
            return Err(self.reader.fail(ErrorKind::TooDeep, reason));
        }
        self.nesting += 1;
        let start = open(&mut self.out);
        write(self)?;
        close(&mut self.out, start);
        self.nesting -= 1;
        Ok(())
    }

    pub(crate) fn message(&mut self, index: u32) -> Result<()> {
        let message = self.pool.message(index);
        match message.form {
            Form::Regular => self.fields(message, false),
            _ => self.known(message),
        }
    }

    /// The fields of a regular message; those of an `Any` have its `@type` among them.
    pub(crate) fn fields(&mut self, message: &'p Message, in_any: bool) -> Result<()> {
        self.enter_object()?;
        let mut seen = Seen::default();
        let mut first = true;
        let mut expected = 0;
        while let Some(key) = self.reader.key(&mut first)? {
            if in_any && key == "@type" {
                seen.note_type(&self.reader)?;
                self.reader.skip_value()?;
                continue;
            }
            // Most documents have their fields in the schema's order.
            let index = match message.fields.get(expected) {
                Some(field) if *field.json_name == *key => expected,
                _ => match message.by_name(&key) {
                    Some(index) => index,
                    None if self.ignore_unknown => {
                        self.reader.skip_value()?;
                        continue;
                    }
                    None => return Err(self.unknown_field(message, &key)),
                },
            };
            expected = index + 1;
            let field = &message.fields[index];
            self.known_field(message, index, &mut seen)
                .map_err(|error| {
                    error.in_field(if *field.name == *key {
                        &field.name
                    } else {
                        &field.json_name
                    })
                })?;
        }
        Ok(())
    }

    fn known_field(&mut self, message: &'p Message, index: usize, seen: &mut Seen) -> Result<()> {
        let field = &message.fields[index];
        if !seen.fields.insert(index) {
            return Err(self
                .reader
                .fail(ErrorKind::DuplicateKey, "the field is given twice"));
        }
        let is_set = self.field(field)?;
        match field.oneof.map(usize::from) {
            Some(oneof) if is_set && !seen.oneofs.insert(oneof) => {
                let name = &message.oneofs[oneof];
                let reason = format!("another field of the oneof {name:?} is given, too");
                Err(self.reader.fail(ErrorKind::OneofConflict, reason))
            }
            _ => Ok(()),
        }
    }

    /// A field's value with its tags; false if it is a null that leaves the field unset.
    pub(crate) fn field(&mut self, field: &'p Field) -> Result<bool> {
        let token = self.reader.peek()?;
        if token == Token::Null && (field.is_repeated() || !self.takes_null(field.kind)) {
            self.reader.literal("null")?;
            return Ok(false);
        }
        match field.shape {
            Shape::Explicit => {
                field.tag.put(&mut self.out);
                self.value(field.kind, token)?;
            }
            Shape::Implicit => {
                let start = self.out.len();
                field.tag.put(&mut self.out);
                if self.value(field.kind, token)? {
                    self.out.truncate(start);
                }
            }
            Shape::Expanded => self.list(field, token, Some(field))?,
            Shape::Packed => {
                let before = self.out.len();
                field.packed_tag.put(&mut self.out);
                let start = open(&mut self.out);
                self.list(field, token, None)?;
                if self.out.len() == start {
                    self.out.truncate(before);
                } else {
                    close(&mut self.out, start);
                }
            }
            Shape::Map => self.map(field, token)?,
        }
        Ok(true)
    }

    fn list(&mut self, field: &'p Field, token: Token, tagged: Option<&Field>) -> Result<()> {
        if token != Token::Array {
            return Err(self.reader.wrong_type("an array", token));
        }
        self.reader.enter()?;
        let mut first = true;
        let mut index = 0;
        while self.reader.item(&mut first)? {
            if let Some(field) = tagged {
                field.tag.put(&mut self.out);
            }
            self.item(field.kind)
                .map_err(|error| error.in_item(index))?;
            index += 1;
        }
        Ok(())
    }

    fn item(&mut self, kind: Kind) -> Result<()> {
        let token = self.reader.peek()?;
        if token == Token::Null && !self.takes_null(kind) {
            return Err(self
                .reader
                .fail(ErrorKind::WrongType, "null is no item or map value"));
        }
        self.value(kind, token).map(drop)
    }

    fn map(&mut self, field: &'p Field, token: Token) -> Result<()> {
        let Kind::Message(entry) = field.kind else {
            return Ok(());
        };
        if token != Token::Object {
            return Err(self.reader.wrong_type("an object", token));
        }
        self.reader.enter()?;
        let [key_field, value_field] = self.pool.message(entry).fields.as_slice() else {
            return Ok(());
        };
        let mut keys = Keys::default();
        let mut first = true;
        while let Some(key) = self.reader.key(&mut first)? {
            field.tag.put(&mut self.out);
            let entry =
                |parser: &mut Self| parser.entry([key_field, value_field], key.clone(), &mut keys);
            self.nested(entry).map_err(|error| error.in_key(&key))?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        [key_field, value_field]: [&'p Field; 2],
        key: Cow<'a, str>,
        keys: &mut Keys<'a>,
    ) -> Result<()> {
        key_field.tag.put(&mut self.out);
        let start = self.out.len();
        scalar::put_text(&mut self.out, self.pool, key_field.kind, &key)
            .map_err(|error| error.at_offset(self.reader.offset()))?;
        let canonical = match key_field.kind {
            Kind::String => as_bytes(key),
            // "1" and "1e0" are the same key.
            _ => Cow::Owned(self.out[start..].to_vec()),
        };
        if !keys.insert(canonical) {
            return Err(self.duplicate_key());
        }
        value_field.tag.put(&mut self.out);
        self.item(value_field.kind)
    }

    /// A value without its tag; true if it is its type's default.
    pub(crate) fn value(&mut self, kind: Kind, token: Token) -> Result<bool> {
        match kind {
            Kind::Message(index) => {
                self.nested(|parser| parser.message(index))?;
                Ok(false)
            }
            Kind::String => {
                let text = self.string(token, "a string")?;
                put_bytes(&mut self.out, text.as_bytes());
                Ok(text.is_empty())
            }
            Kind::Bytes => {
                let at = self.reader.offset();
                let text = self.string(token, "bytes as a base64 string")?;
                scalar::put_base64(&mut self.out, &text).map_err(|error| error.at_offset(at))
            }
            Kind::Bool => {
                let value = self.bool(token)?;
                self.out.push(u8::from(value));
                Ok(!value)
            }
            Kind::Enum(index) => self.enumeration(index, token),
            Kind::Group => Err(self
                .reader
                .fail(ErrorKind::Unsupported, "groups are not supported")),
            _ => {
                let at = self.reader.offset();
                let text = match token {
                    Token::Number => Cow::Borrowed(self.reader.number()?),
                    _ => self.string(token, "a number")?,
                };
                scalar::put_number(&mut self.out, kind, &text, token == Token::String)
                    .map_err(|error| error.at_offset(at))
            }
        }
    }

    fn enumeration(&mut self, index: u32, token: Token) -> Result<bool> {
        let enumeration = self.pool.enumeration(index);
        let at = self.reader.offset();
        let text = match token {
            Token::Null if enumeration.is_null => {
                self.reader.literal("null")?;
                Cow::Borrowed("0")
            }
            Token::Number => Cow::Borrowed(self.reader.number()?),
            _ => self.string(token, "an enum's name or number")?,
        };
        scalar::put_enum(&mut self.out, enumeration, &text).map_err(|error| error.at_offset(at))
    }

    pub(crate) fn bool(&mut self, token: Token) -> Result<bool> {
        match token {
            Token::True => self.reader.literal("true").map(|()| true),
            Token::False => self.reader.literal("false").map(|()| false),
            _ => Err(self.reader.wrong_type("true or false", token)),
        }
    }

    pub(crate) fn string(&mut self, token: Token, expected: &str) -> Result<Cow<'a, str>> {
        match token {
            Token::String => self.reader.string(),
            _ => Err(self.reader.wrong_type(expected, token)),
        }
    }

    pub(crate) fn enter_object(&mut self) -> Result<()> {
        match self.reader.peek()? {
            Token::Object => self.reader.enter(),
            token => Err(self.reader.wrong_type("an object", token)),
        }
    }

    pub(crate) fn duplicate_key(&self) -> Error {
        self.reader
            .fail(ErrorKind::DuplicateKey, "the key is given twice")
    }

    pub(crate) fn unknown_field(&self, message: &Message, key: &str) -> Error {
        let reason = format!("{} has no such field", message.full_name);
        self.reader
            .fail(ErrorKind::UnknownField, reason)
            .in_field(&shorten(key))
    }

    /// Whether null is a value of this kind, not the absence of one.
    fn takes_null(&self, kind: Kind) -> bool {
        match kind {
            Kind::Message(index) => self.pool.message(index).form == Form::Value,
            Kind::Enum(index) => self.pool.enumeration(index).is_null,
            _ => false,
        }
    }
}

/// Keys that a map or struct has had. Hashed with a random key: clients choose them.
pub(crate) type Keys<'a> = HashSet<Cow<'a, [u8]>>;

pub(crate) fn as_bytes(text: Cow<'_, str>) -> Cow<'_, [u8]> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    }
}

/// Fields and oneofs that a message has had.
#[derive(Default)]
pub(crate) struct Seen {
    fields: Bits,
    oneofs: Bits,
    any_type: bool,
}

impl Seen {
    pub(crate) fn note_type(&mut self, reader: &Reader<'_>) -> Result<()> {
        if std::mem::replace(&mut self.any_type, true) {
            let error = reader.fail(ErrorKind::DuplicateKey, "the key is given twice");
            return Err(error.in_field("@type"));
        }
        Ok(())
    }
}

/// A set of small integers that needs no memory of its own below 64.
#[derive(Default)]
struct Bits {
    low: u64,
    high: Vec<u64>,
}

impl Bits {
    /// Add a member; false if it was one already.
    fn insert(&mut self, index: usize) -> bool {
        let word = match index / 64 {
            0 => &mut self.low,
            at => {
                if self.high.len() < at {
                    self.high.resize(at, 0);
                }
                &mut self.high[at - 1]
            }
        };
        let bit = 1 << (index % 64);
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }
}
