//! Messages to bytes, identical to betterproto2's own.

use pyo3::CastError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString};

use super::plan::{Element, Field, Native, Plan, Scalar, Shape};
use super::well_known::Toolbox;
use super::wire::{Tag, Wire, begin_length, end_length, unsigned, write_varint, zigzag};

/// The message holds something that the plan does not foresee: betterproto2 decides what it means.
/// Carries the exception, if one was raised on the way.
pub(super) struct Unusual(pub(super) Option<PyErr>);

pub(super) type Written<T> = Result<T, Unusual>;

impl From<PyErr> for Unusual {
    fn from(error: PyErr) -> Self {
        Self(Some(error))
    }
}

impl From<CastError<'_, '_>> for Unusual {
    fn from(_: CastError<'_, '_>) -> Self {
        Self(None)
    }
}

pub(super) struct Encoder<'a, 'py> {
    pub(super) py: Python<'py>,
    pub(super) plans: &'a [Plan],
    pub(super) tools: &'a Toolbox,
    pub(super) out: Vec<u8>,
}

impl<'a, 'py> Encoder<'a, 'py> {
    /// Append a message without a length in front.
    pub(super) fn message(
        &mut self,
        index: usize,
        value: &Bound<'py, PyAny>,
        depth: u32,
    ) -> Written<()> {
        let native = match &self.plans[index] {
            Plan::Native(native) => native,
            Plan::Foreign(_) => return self.foreign(value),
        };
        if depth == 0 || !value.is_exact_instance(native.class.bind(self.py)) {
            return Err(Unusual(None));
        }
        for field in &native.fields {
            let value = value.getattr(field.name.bind(self.py))?;
            if !value.is_none() {
                self.field(field, &value, depth)?;
            }
        }
        let unknown = value.getattr(intern!(self.py, "_unknown_fields"))?;
        self.out
            .extend_from_slice(unknown.cast::<PyBytes>()?.as_bytes());
        Ok(())
    }

    fn field(&mut self, field: &'a Field, value: &Bound<'py, PyAny>, depth: u32) -> Written<()> {
        let element = &field.element;
        match &field.shape {
            Shape::Single { explicit, .. } => {
                let start = self.out.len();
                field.tag.write(&mut self.out);
                let is_default = !self.element(element, value, depth)?;
                if is_default && !explicit {
                    self.out.truncate(start);
                }
            }
            Shape::Repeated => {
                for item in value.cast_exact::<PyList>()? {
                    field.tag.write(&mut self.out);
                    self.element(element, &item, depth)?;
                }
            }
            Shape::Packed => {
                let list = value.cast_exact::<PyList>()?;
                if !list.is_empty() {
                    field.tag.write(&mut self.out);
                    let start = begin_length(&mut self.out);
                    for item in list {
                        self.element(element, &item, depth)?;
                    }
                    end_length(&mut self.out, start);
                }
            }
            Shape::Map(key) => {
                // A copy of the items: encoding a value can run Python code, which can change the map.
                for item in value.cast_exact::<PyDict>()?.items() {
                    let (name, value): (Bound<'py, PyAny>, Bound<'py, PyAny>) = item.extract()?;
                    field.tag.write(&mut self.out);
                    let start = begin_length(&mut self.out);
                    key.tag.write(&mut self.out);
                    self.scalar(key.scalar, &name)?;
                    key.value_tag.write(&mut self.out);
                    self.element(element, &value, depth)?;
                    end_length(&mut self.out, start);
                }
            }
        }
        Ok(())
    }

    /// Append a value, with its length in front where the wire has one. False if the value is the
    /// default of its type.
    fn element(
        &mut self,
        element: &'a Element,
        value: &Bound<'py, PyAny>,
        depth: u32,
    ) -> Written<bool> {
        match element {
            Element::Scalar(scalar) => return self.scalar(*scalar, value),
            Element::Enum(_) => return self.scalar(Scalar::Int64, value),
            Element::Message(index) => {
                let start = begin_length(&mut self.out);
                self.message(*index, value, depth - 1)?;
                end_length(&mut self.out, start);
            }
            Element::Wrapper(index) => {
                let field = match &self.plans[*index] {
                    Plan::Native(Native { fields, .. }) if fields.len() == 1 => &fields[0],
                    _ => return Err(Unusual(None)),
                };
                let start = begin_length(&mut self.out);
                self.field(field, value, depth)?;
                end_length(&mut self.out, start);
            }
            Element::Timestamp(index) => match self.tools.timestamp_parts(value) {
                Some(parts) => self.seconds_and_nanos(parts),
                None => self.wrapped(*index, value, depth)?,
            },
            Element::Duration(index) => match self.tools.duration_parts(value) {
                Some(parts) => self.seconds_and_nanos(parts),
                None => self.wrapped(*index, value, depth)?,
            },
            Element::Wrapped(index) => self.wrapped(*index, value, depth)?,
        }
        Ok(true)
    }

    fn seconds_and_nanos(&mut self, (seconds, nanos): (i64, i64)) {
        let start = begin_length(&mut self.out);
        for (number, value) in [(1, seconds), (2, nanos)] {
            if value != 0 {
                Tag::new(number, Wire::Varint).write(&mut self.out);
                write_varint(&mut self.out, unsigned(value));
            }
        }
        end_length(&mut self.out, start);
    }

    fn wrapped(&mut self, index: usize, value: &Bound<'py, PyAny>, depth: u32) -> Written<()> {
        let class = self.plans[index].class().bind(self.py);
        let message = class.call_method1(intern!(self.py, "from_wrapped"), (value,))?;
        let start = begin_length(&mut self.out);
        self.message(index, &message, depth - 1)?;
        end_length(&mut self.out, start);
        Ok(())
    }

    fn foreign(&mut self, value: &Bound<'py, PyAny>) -> Written<()> {
        let bytes = self.py.get_type::<PyBytes>().call1((value,))?;
        self.out
            .extend_from_slice(bytes.cast::<PyBytes>()?.as_bytes());
        Ok(())
    }

    fn scalar(&mut self, scalar: Scalar, value: &Bound<'py, PyAny>) -> Written<bool> {
        let out = &mut self.out;
        match scalar {
            Scalar::String => {
                let text = value.cast::<PyString>()?.to_str()?;
                write_varint(out, text.len() as u64);
                out.extend_from_slice(text.as_bytes());
                Ok(!text.is_empty())
            }
            Scalar::Bytes => {
                let bytes = value.cast::<PyBytes>()?.as_bytes();
                write_varint(out, bytes.len() as u64);
                out.extend_from_slice(bytes);
                Ok(!bytes.is_empty())
            }
            Scalar::Bool => {
                if let Ok(value) = value.cast::<PyBool>() {
                    out.push(u8::from(value.is_true()));
                    return Ok(value.is_true());
                }
                let value = integer(value)?;
                write_varint(out, value);
                Ok(value != 0)
            }
            Scalar::Int32 | Scalar::Int64 | Scalar::Uint32 | Scalar::Uint64 => {
                // betterproto2 does not check ranges here: every width writes the 64-bit varint.
                let value = integer(value)?;
                write_varint(out, value);
                Ok(value != 0)
            }
            Scalar::Sint32 | Scalar::Sint64 => {
                let value: i64 = value.cast::<PyInt>()?.extract()?;
                write_varint(out, zigzag(value));
                Ok(value != 0)
            }
            Scalar::Fixed32 => {
                let value: u32 = value.cast::<PyInt>()?.extract()?;
                out.extend_from_slice(&value.to_le_bytes());
                Ok(value != 0)
            }
            Scalar::Fixed64 => {
                let value: u64 = value.cast::<PyInt>()?.extract()?;
                out.extend_from_slice(&value.to_le_bytes());
                Ok(value != 0)
            }
            Scalar::Sfixed32 => {
                let value: i32 = value.cast::<PyInt>()?.extract()?;
                out.extend_from_slice(&value.to_le_bytes());
                Ok(value != 0)
            }
            Scalar::Sfixed64 => {
                let value: i64 = value.cast::<PyInt>()?.extract()?;
                out.extend_from_slice(&value.to_le_bytes());
                Ok(value != 0)
            }
            Scalar::Double => {
                let value = float(value)?;
                out.extend_from_slice(&value.to_le_bytes());
                Ok(value != 0.0)
            }
            Scalar::Float => {
                let value = float(value)?;
                // Rounding to the nearest is the point; what leaves the range is refused below.
                #[allow(clippy::cast_possible_truncation)]
                let single = value as f32;
                if single.is_infinite() && value.is_finite() {
                    return Err(Unusual(None));
                }
                out.extend_from_slice(&single.to_le_bytes());
                Ok(value != 0.0)
            }
        }
    }
}

/// The 64 bits that betterproto2 writes for an int of any sign.
fn integer(value: &Bound<'_, PyAny>) -> Written<u64> {
    let value = value.cast::<PyInt>()?;
    match value.extract::<i64>() {
        Ok(value) => Ok(unsigned(value)),
        Err(_) => Ok(value.extract::<u64>()?),
    }
}

fn float(value: &Bound<'_, PyAny>) -> Written<f64> {
    if let Ok(value) = value.cast::<PyFloat>() {
        return Ok(value.value());
    }
    Ok(value.cast::<PyInt>()?.extract()?)
}
