//! JSON text going in: tokens, nesting and nothing else.

use std::borrow::Cow;

use crate::error::{Error, ErrorKind, Result};
use crate::number;

/// Reads a document token by token. Errors carry their offset.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    max_depth: usize,
}

/// A place in the document to which a reader can return.
#[derive(Clone, Copy)]
pub(crate) struct Mark {
    at: usize,
    depth: usize,
}

/// What a value is, by its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    Object,
    Array,
    String,
    Number,
    True,
    False,
    Null,
}

impl Token {
    pub(crate) fn describe(self) -> &'static str {
        match self {
            Self::Object => "an object",
            Self::Array => "an array",
            Self::String => "a string",
            Self::Number => "a number",
            Self::True | Self::False => "a boolean",
            Self::Null => "null",
        }
    }
}

impl<'a> Reader<'a> {
    pub(crate) fn new(document: &'a [u8], max_depth: usize) -> Result<Self> {
        match std::str::from_utf8(document) {
            Ok(text) => Ok(Self {
                text,
                at: 0,
                depth: 0,
                max_depth,
            }),
            Err(error) => Err(
                Error::new(ErrorKind::Malformed, "the document is not UTF-8")
                    .at_offset(error.valid_up_to()),
            ),
        }
    }

    pub(crate) fn mark(&self) -> Mark {
        Mark {
            at: self.at,
            depth: self.depth,
        }
    }

    pub(crate) fn offset(&self) -> usize {
        self.at
    }

    pub(crate) fn rewind(&mut self, mark: Mark) {
        self.at = mark.at;
        self.depth = mark.depth;
    }

    /// An error at the current place.
    #[cold]
    pub(crate) fn fail(&self, kind: ErrorKind, reason: impl Into<Cow<'static, str>>) -> Error {
        Error::new(kind, reason).at_offset(self.at)
    }

    #[cold]
    pub(crate) fn wrong_type(&self, expected: &str, got: Token) -> Error {
        let reason = format!("expected {expected}, got {}", got.describe());
        self.fail(ErrorKind::WrongType, reason)
    }

    /// Look at the value that comes next.
    #[inline]
    pub(crate) fn peek(&mut self) -> Result<Token> {
        self.skip_space();
        match self.byte() {
            Some(b'"') => Ok(Token::String),
            Some(b'-' | b'0'..=b'9') => Ok(Token::Number),
            Some(b'{') => Ok(Token::Object),
            Some(b'[') => Ok(Token::Array),
            Some(b't') => Ok(Token::True),
            Some(b'f') => Ok(Token::False),
            Some(b'n') => Ok(Token::Null),
            _ => Err(self.unexpected("a value")),
        }
    }

    /// Take `true`, `false` or `null`, after [`Self::peek`] has seen its first byte.
    pub(crate) fn literal(&mut self, literal: &'static str) -> Result<()> {
        if self.text[self.at..].starts_with(literal) {
            self.at += literal.len();
            return self.boundary();
        }
        Err(self.fail(ErrorKind::Malformed, format!("expected {literal}")))
    }

    pub(crate) fn number(&mut self) -> Result<&'a str> {
        let rest = &self.text[self.at..];
        let Some(len) = number::number_len(rest.as_bytes()) else {
            return Err(self.fail(ErrorKind::Malformed, "not a number by JSON's grammar"));
        };
        self.at += len;
        self.boundary()?;
        Ok(&rest[..len])
    }

    /// Take a string, after [`Self::peek`] has seen its quote.
    #[inline]
    pub(crate) fn string(&mut self) -> Result<Cow<'a, str>> {
        let start = self.at + 1;
        let len = plain_len(&self.text.as_bytes()[start..]);
        if self.text.as_bytes().get(start + len) == Some(&b'"') {
            self.at = start + len + 1;
            return Ok(Cow::Borrowed(&self.text[start..start + len]));
        }
        self.at = start;
        self.escaped_string().map(Cow::Owned)
    }

    fn escaped_string(&mut self) -> Result<String> {
        let mut content = String::new();
        loop {
            let len = plain_len(&self.text.as_bytes()[self.at..]);
            content.push_str(&self.text[self.at..self.at + len]);
            self.at += len;
            match self.byte() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(content);
                }
                Some(b'\\') => content.push(self.escape()?),
                Some(_) => {
                    let reason = "a control character in a string: write it as \\u00XX";
                    return Err(self.fail(ErrorKind::Malformed, reason));
                }
                None => {
                    return Err(self.fail(ErrorKind::Malformed, "the string does not end"));
                }
            }
        }
    }

    fn escape(&mut self) -> Result<char> {
        let plain = match self.text.as_bytes().get(self.at + 1) {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode_escape(),
            _ => return Err(self.fail(ErrorKind::Malformed, "unknown escape in a string")),
        };
        self.at += 2;
        Ok(plain)
    }

    fn unicode_escape(&mut self) -> Result<char> {
        let first = self.hex_unit(self.at)?;
        let (code, len) = match first {
            0xd800..=0xdbff if self.text[self.at + 6..].starts_with("\\u") => {
                match self.hex_unit(self.at + 6)? {
                    low @ 0xdc00..=0xdfff => {
                        (0x1_0000 + ((first - 0xd800) << 10) + (low - 0xdc00), 12)
                    }
                    _ => (first, 6),
                }
            }
            _ => (first, 6),
        };
        // Only a lone surrogate is no character here.
        let char = char::from_u32(code).ok_or_else(|| {
            self.fail(
                ErrorKind::Malformed,
                "a lone surrogate in a string is no character",
            )
        })?;
        self.at += len;
        Ok(char)
    }

    /// The UTF-16 unit of the `\uXXXX` at a place.
    fn hex_unit(&self, at: usize) -> Result<u32> {
        let digits = self.text.as_bytes().get(at + 2..at + 6).unwrap_or_default();
        let unit = digits.iter().try_fold(0, |unit, digit| {
            Some(unit << 4 | char::from(*digit).to_digit(16)?)
        });
        match unit {
            Some(unit) if digits.len() == 4 => Ok(unit),
            _ => Err(self.fail(ErrorKind::Malformed, "\\u needs four hexadecimal digits")),
        }
    }

    /// Enter an object or array, after [`Self::peek`] has seen its bracket.
    #[inline]
    pub(crate) fn enter(&mut self) -> Result<()> {
        if self.depth == self.max_depth {
            let reason = format!("nested deeper than {} levels", self.max_depth);
            return Err(self.fail(ErrorKind::TooDeep, reason));
        }
        self.depth += 1;
        self.at += 1;
        Ok(())
    }

    /// The next key of the object that was entered, up to its colon; `None` at the object's end.
    #[inline]
    pub(crate) fn key(&mut self, first: &mut bool) -> Result<Option<Cow<'a, str>>> {
        if !self.more(b'}', first)? {
            return Ok(None);
        }
        if self.byte() != Some(b'"') {
            return Err(self.unexpected("a key in double quotes"));
        }
        let key = self.string()?;
        self.skip_space();
        if self.byte() != Some(b':') {
            return Err(self.unexpected("a colon"));
        }
        self.at += 1;
        Ok(Some(key))
    }

    /// Whether the array that was entered has a further item; leaves it at its end.
    #[inline]
    pub(crate) fn item(&mut self, first: &mut bool) -> Result<bool> {
        self.more(b']', first)
    }

    #[inline]
    fn more(&mut self, closing: u8, first: &mut bool) -> Result<bool> {
        self.skip_space();
        match self.byte() {
            Some(byte) if byte == closing => {
                self.at += 1;
                self.depth -= 1;
                return Ok(false);
            }
            Some(b',') if !*first => {
                self.at += 1;
                self.skip_space();
                if self.byte() == Some(closing) {
                    return Err(self.fail(ErrorKind::Malformed, "a comma before the end"));
                }
            }
            _ if *first => {}
            _ => return Err(self.unexpected("a comma or the end")),
        }
        *first = false;
        Ok(true)
    }

    /// Step over a value without a look inside. Whoever reads it later finds its faults.
    pub(crate) fn skip_value(&mut self) -> Result<()> {
        let outside = self.depth;
        loop {
            match self.peek()? {
                Token::Object | Token::Array => self.enter()?,
                Token::String => drop(self.string()?),
                Token::Number => drop(self.number()?),
                Token::True => self.literal("true")?,
                Token::False => self.literal("false")?,
                Token::Null => self.literal("null")?,
            }
            loop {
                if self.depth == outside {
                    return Ok(());
                }
                self.skip_space();
                match self.byte() {
                    Some(b'}' | b']') => self.depth -= 1,
                    Some(b',' | b':') => {
                        self.at += 1;
                        break;
                    }
                    // The first value of an object or array.
                    Some(_) => break,
                    None => return Err(self.unexpected("the end of the object or array")),
                }
                self.at += 1;
            }
        }
    }

    /// Check that nothing follows the document's value.
    pub(crate) fn end(&mut self) -> Result<()> {
        self.skip_space();
        match self.byte() {
            None => Ok(()),
            Some(_) => Err(self.fail(ErrorKind::Malformed, "text after the end of the document")),
        }
    }

    #[inline]
    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    #[inline]
    fn skip_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.byte() {
            self.at += 1;
        }
    }

    /// A number or literal must not run into other text: `12x`, `truefalse`.
    #[inline]
    fn boundary(&self) -> Result<()> {
        match self.byte() {
            None | Some(b',' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t' | b':') => Ok(()),
            Some(_) => Err(self.unexpected("the end of the value")),
        }
    }

    #[cold]
    fn unexpected(&self, expected: &str) -> Error {
        let reason = match self.text[self.at..].chars().next() {
            None => format!("expected {expected}, got the end of the document"),
            Some(found) => format!("expected {expected}, got {found:?}"),
        };
        self.fail(ErrorKind::Malformed, reason)
    }
}

/// Bytes before the first quote, backslash or control character.
#[inline]
fn plain_len(text: &[u8]) -> usize {
    text.iter()
        .position(|byte| *byte < 0x20 || *byte == b'"' || *byte == b'\\')
        .unwrap_or(text.len())
}
