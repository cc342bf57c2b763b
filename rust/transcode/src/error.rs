//! What can be wrong with a schema, a request or a reply.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// Longest piece of the client's own text that a reason repeats, in characters.
const QUOTE_LIMIT: usize = 64;

/// The class of an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Not JSON.
    Malformed,
    /// The message has no such field.
    UnknownField,
    /// The value has a type that the field cannot take.
    WrongType,
    /// A number, time or duration that its type cannot hold.
    OutOfRange,
    /// The same field or key twice.
    DuplicateKey,
    /// Two members of one `oneof`.
    OneofConflict,
    /// An enum name or a message type that the schema does not have.
    UnknownValue,
    /// Nested deeper than the limit.
    TooDeep,
    /// The route takes a body and there is none.
    MissingBody,
    /// The route takes no body and there is one.
    UnexpectedBody,
    /// The request target is no valid path and query.
    BadTarget,
    /// A feature of the schema that is not translated (groups).
    Unsupported,
    /// A reply that is no valid encoding of its message.
    InvalidReply,
    /// A reply with a value that JSON cannot carry.
    Unprintable,
}

impl ErrorKind {
    /// The stable name that callers in other languages see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::UnknownField => "unknown_field",
            Self::WrongType => "wrong_type",
            Self::OutOfRange => "out_of_range",
            Self::DuplicateKey => "duplicate_key",
            Self::OneofConflict => "oneof_conflict",
            Self::UnknownValue => "unknown_value",
            Self::TooDeep => "too_deep",
            Self::MissingBody => "missing_body",
            Self::UnexpectedBody => "unexpected_body",
            Self::BadTarget => "bad_target",
            Self::Unsupported => "unsupported",
            Self::InvalidReply => "invalid_reply",
            Self::Unprintable => "unprintable",
        }
    }
}

/// A request or reply that cannot be translated, and where.
#[derive(Debug)]
pub struct Error(Box<Details>);

#[derive(Debug)]
struct Details {
    kind: ErrorKind,
    reason: Cow<'static, str>,
    offset: Option<usize>,
    // Innermost first: each level adds itself while the error travels outwards, so that a
    // document without faults pays nothing for its paths.
    path: Vec<Step>,
}

#[derive(Debug)]
enum Step {
    Field(String),
    Index(usize),
    Key(String),
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, reason: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Details {
            kind,
            reason: reason.into(),
            offset: None,
            path: Vec::new(),
        }))
    }

    pub(crate) fn at_offset(mut self, offset: usize) -> Self {
        self.0.offset.get_or_insert(offset);
        self
    }

    pub(crate) fn in_field(mut self, name: &str) -> Self {
        self.0.path.push(Step::Field(shorten(name).into_owned()));
        self
    }

    pub(crate) fn in_item(mut self, index: usize) -> Self {
        self.0.path.push(Step::Index(index));
        self
    }

    pub(crate) fn in_key(mut self, key: &str) -> Self {
        self.0.path.push(Step::Key(shorten(key).into_owned()));
        self
    }

    /// The class of the error.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What is wrong.
    pub fn reason(&self) -> &str {
        &self.0.reason
    }

    /// Byte of the JSON document at which reading stopped.
    pub fn offset(&self) -> Option<usize> {
        self.0.offset
    }

    /// Where, as the client wrote it: `items[2].quantity`; empty for the whole message.
    pub fn field(&self) -> String {
        let mut text = String::new();
        for step in self.0.path.iter().rev() {
            // Writing to a String cannot fail.
            let _ = match step {
                Step::Field(name) if text.is_empty() => text.write_str(name),
                Step::Field(name) => write!(text, ".{name}"),
                Step::Index(index) => write!(text, "[{index}]"),
                Step::Key(key) => write!(text, "[{key:?}]"),
            };
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let field = self.field();
        if !field.is_empty() {
            write!(f, "{field}: ")?;
        }
        f.write_str(&self.0.reason)?;
        match self.0.offset {
            Some(offset) => write!(f, " (at byte {offset})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

/// A descriptor set or route that cannot be compiled.
#[derive(Debug, PartialEq, Eq)]
pub struct SchemaError(pub(crate) String);

impl fmt::Display for SchemaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SchemaError {}

/// A piece of the client's text that is short enough to repeat to it.
pub(crate) fn shorten(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(QUOTE_LIMIT) {
        None => Cow::Borrowed(text),
        Some((end, _)) => Cow::Owned(format!("{}...", &text[..end])),
    }
}
