//! Why bytes could not be decoded, and where.

use pyo3::exceptions::{PyException, PyMemoryError};
use pyo3::import_exception;
use pyo3::prelude::*;

import_exception!(bascule.errors, DecodeError);

pub(super) type Parsed<T> = Result<T, Fault>;

/// What is wrong with the bytes.
#[derive(Debug)]
pub(super) enum Flaw {
    Truncated,
    Varint,
    Tag,
    Group,
    WireType(u8),
    Depth,
    /// The bytes are well-formed, but Python has no value for them: text that is not UTF-8,
    /// a time outside the calendar, a value that the enum refuses.
    Value(PyErr),
    /// Not the fault of the bytes: building the message raised.
    Raised(PyErr),
}

/// A flaw with its place. Boxed, so that results stay small where all is well.
#[derive(Debug)]
pub(super) struct Fault(Box<Report>);

#[derive(Debug)]
struct Report {
    flaw: Flaw,
    at: usize,
    /// Innermost field first: each level adds its own name while the error unwinds.
    path: Vec<String>,
}

impl Fault {
    #[cold]
    pub(super) fn new(flaw: Flaw, at: usize) -> Self {
        Self(Box::new(Report {
            flaw,
            at,
            path: Vec::new(),
        }))
    }

    /// Wrap an exception raised while a value was converted. Only ordinary exceptions accuse the
    /// bytes: cancellation and lack of memory pass through unchanged.
    #[cold]
    pub(super) fn value(py: Python<'_>, error: PyErr, at: usize) -> Self {
        let innocent =
            error.is_instance_of::<PyMemoryError>(py) || !error.is_instance_of::<PyException>(py);
        Self::new(
            if innocent {
                Flaw::Raised(error)
            } else {
                Flaw::Value(error)
            },
            at,
        )
    }

    #[cold]
    pub(super) fn raised(error: PyErr) -> Self {
        Self::new(Flaw::Raised(error), 0)
    }

    #[cold]
    pub(super) fn within(mut self, field: &str) -> Self {
        self.0.path.push(field.to_owned());
        self
    }

    pub(super) fn into_error(self, py: Python<'_>, message: &str, size: usize) -> PyErr {
        let (reason, cause) = match self.0.flaw {
            Flaw::Raised(error) => return error,
            Flaw::Value(error) => (error.value(py).to_string(), Some(error)),
            Flaw::Truncated => ("the bytes end in the middle of a value".to_owned(), None),
            Flaw::Varint => ("a varint has more than 10 bytes".to_owned(), None),
            Flaw::Tag => ("a tag is outside 1 to 536870911".to_owned(), None),
            Flaw::Group => ("groups are not supported".to_owned(), None),
            Flaw::WireType(wire) => (format!("wire type {wire} does not exist"), None),
            Flaw::Depth => ("messages are nested more than 100 deep".to_owned(), None),
        };
        let mut place = message.to_owned();
        // Deep recursion would name the same field a hundred times.
        for field in self.0.path.iter().rev().take(8) {
            place.push('.');
            place.push_str(field);
        }
        let error = DecodeError::new_err(format!(
            "cannot decode {place}: {reason} (byte {} of {size})",
            self.0.at
        ));
        error.set_cause(py, cause);
        error
    }
}
