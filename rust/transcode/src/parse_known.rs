//! JSON text into the well-known types that have a form of their own.

use std::borrow::Cow;

use crate::error::{ErrorKind, Result, shorten};
use crate::json::Token;
use crate::number;
use crate::parse::{Keys, Parser, as_bytes};
use crate::pool::{Form, Message};
use crate::scalar;
use crate::time;
use crate::wire::put_bytes;

// Tags of google/protobuf/any.proto and struct.proto.
const ANY_TYPE_URL: u8 = 0x0a;
const ANY_VALUE: u8 = 0x12;
const STRUCT_ENTRY: u8 = 0x0a;
const ENTRY_KEY: u8 = 0x0a;
const ENTRY_VALUE: u8 = 0x12;
const LIST_ITEM: u8 = 0x0a;
const VALUE_NULL: u8 = 0x08;
const VALUE_NUMBER: u8 = 0x11;
const VALUE_STRING: u8 = 0x1a;
const VALUE_BOOL: u8 = 0x20;
const VALUE_STRUCT: u8 = 0x2a;
const VALUE_LIST: u8 = 0x32;

impl<'p, 'a> Parser<'p, 'a> {
    pub(crate) fn known(&mut self, message: &'p Message) -> Result<()> {
        let token = self.reader.peek()?;
        let at = self.reader.offset();
        match message.form {
            Form::Regular => self.fields(message, false),
            Form::Any => self.any(),
            Form::Struct => self.structure(),
            Form::ListValue => self.list_value(token),
            Form::Value => self.any_value(token),
            Form::Wrapper => {
                let field = &message.fields[0];
                let start = self.out.len();
                field.tag.put(&mut self.out);
                if self.value(field.kind, token)? {
                    self.out.truncate(start);
                }
                Ok(())
            }
            Form::Timestamp => {
                let text = self.string(token, "a timestamp as a string")?;
                let parsed = time::parse_timestamp(&text).map_err(|error| error.at_offset(at))?;
                scalar::put_time(&mut self.out, parsed);
                Ok(())
            }
            Form::Duration => {
                let text = self.string(token, "a duration as a string")?;
                let parsed = time::parse_duration(&text).map_err(|error| error.at_offset(at))?;
                scalar::put_time(&mut self.out, parsed);
                Ok(())
            }
            Form::FieldMask => {
                let text = self.string(token, "a field mask as a string")?;
                scalar::put_field_mask(&mut self.out, &text).map_err(|error| error.at_offset(at))
            }
        }
    }

    fn any(&mut self) -> Result<()> {
        let start = self.reader.mark();
        let Some(type_url) = self.any_type()? else {
            return Ok(());
        };
        self.reader.rewind(start);
        let name = type_url.rsplit_once('/').map_or("", |(_, name)| name);
        let Some(index) = self.pool.find(name) else {
            let reason = format!("unknown message type {:?}", shorten(&type_url));
            return Err(self
                .reader
                .fail(ErrorKind::UnknownValue, reason)
                .in_field("@type"));
        };
        self.out.push(ANY_TYPE_URL);
        put_bytes(&mut self.out, type_url.as_bytes());
        let before = self.out.len();
        self.out.push(ANY_VALUE);
        let content = self.out.len() + 1;
        let message = self.pool.message(index);
        self.nested(|parser| match message.form {
            Form::Regular => parser.fields(message, true),
            _ => parser.any_of_known(message),
        })?;
        if self.out.len() == content {
            self.out.truncate(before);
        }
        Ok(())
    }

    /// The `@type` of the object that comes next, wherever in it; `None` if it is empty.
    ///
    /// Nested ones scan their part again: as often as the limit of depth allows.
    fn any_type(&mut self) -> Result<Option<Cow<'a, str>>> {
        self.enter_object()?;
        let mut first = true;
        while let Some(key) = self.reader.key(&mut first)? {
            if key != "@type" {
                self.reader.skip_value()?;
                continue;
            }
            let token = self.reader.peek()?;
            let text = self.string(token, "a type's URL as a string");
            return text.map(Some).map_err(|error| error.in_field("@type"));
        }
        if first {
            return Ok(None);
        }
        let error = self
            .reader
            .fail(ErrorKind::WrongType, "the message's type is missing");
        Err(error.in_field("@type"))
    }

    /// An `Any` whose message has a form of its own stands in `value`.
    fn any_of_known(&mut self, message: &'p Message) -> Result<()> {
        self.enter_object()?;
        let (mut has_type, mut has_value) = (false, false);
        let mut first = true;
        while let Some(key) = self.reader.key(&mut first)? {
            let seen = match &*key {
                "@type" => &mut has_type,
                "value" => &mut has_value,
                _ => return Err(self.unknown_field(message, &key)),
            };
            if std::mem::replace(seen, true) {
                return Err(self.duplicate_key().in_field(&key));
            }
            if key == "@type" {
                self.reader.skip_value()?;
            } else {
                self.known(message)
                    .map_err(|error| error.in_field("value"))?;
            }
        }
        if has_value {
            return Ok(());
        }
        let reason = format!("{} needs its value here", message.full_name);
        Err(self
            .reader
            .fail(ErrorKind::WrongType, reason)
            .in_field("value"))
    }

    fn structure(&mut self) -> Result<()> {
        self.enter_object()?;
        let mut keys = Keys::default();
        let mut first = true;
        while let Some(key) = self.reader.key(&mut first)? {
            self.out.push(STRUCT_ENTRY);
            self.nested(|parser| {
                parser.out.push(ENTRY_KEY);
                put_bytes(&mut parser.out, key.as_bytes());
                if !keys.insert(as_bytes(key.clone())) {
                    return Err(parser.duplicate_key());
                }
                parser.out.push(ENTRY_VALUE);
                parser.item_value()
            })
            .map_err(|error| error.in_key(&key))?;
        }
        Ok(())
    }

    fn list_value(&mut self, token: Token) -> Result<()> {
        if token != Token::Array {
            return Err(self.reader.wrong_type("an array", token));
        }
        self.reader.enter()?;
        let mut first = true;
        let mut index = 0;
        while self.reader.item(&mut first)? {
            self.out.push(LIST_ITEM);
            self.item_value().map_err(|error| error.in_item(index))?;
            index += 1;
        }
        Ok(())
    }

    fn item_value(&mut self) -> Result<()> {
        let token = self.reader.peek()?;
        self.nested(|parser| parser.any_value(token))
    }

    /// The content of a `Value`.
    fn any_value(&mut self, token: Token) -> Result<()> {
        match token {
            Token::Null => {
                self.reader.literal("null")?;
                self.out.extend_from_slice(&[VALUE_NULL, 0]);
            }
            Token::Number => {
                let at = self.reader.offset();
                let text = self.reader.number()?;
                let value = number::float(text).map_err(|error| error.at_offset(at))?;
                self.out.push(VALUE_NUMBER);
                self.out.extend_from_slice(&value.to_le_bytes());
            }
            Token::String => {
                let text = self.reader.string()?;
                self.out.push(VALUE_STRING);
                put_bytes(&mut self.out, text.as_bytes());
            }
            Token::True | Token::False => {
                let value = self.bool(token)?;
                self.out.extend_from_slice(&[VALUE_BOOL, u8::from(value)]);
            }
            Token::Object => {
                self.out.push(VALUE_STRUCT);
                self.nested(Self::structure)?;
            }
            Token::Array => {
                self.out.push(VALUE_LIST);
                self.nested(|parser| parser.list_value(token))?;
            }
        }
        Ok(())
    }
}
