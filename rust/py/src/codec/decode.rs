//! Bytes to messages, equal to what betterproto2 makes of the same bytes.
//!
//! Where betterproto2 reads past the end, accepts what is no protobuf, or stores a value of another
//! type in a field, this decoder follows the protobuf specification instead: the first two are
//! refused, and a field with the wrong wire type is kept as an unknown one.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString};

use super::fault::{Fault, Flaw, Parsed};
use super::plan::{Element, Enum, Field, MapKey, Native, Plan, Scalar, Shape};
use super::well_known::Toolbox;
use super::wire::{Reader, Wire, signed, unzigzag};

pub(super) struct Decoder<'a, 'py> {
    pub(super) py: Python<'py>,
    pub(super) plans: &'a [Plan],
    pub(super) tools: &'a Toolbox,
    /// One slot for each field of the messages being decoded, the innermost message last.
    pub(super) slots: Vec<Option<Bound<'py, PyAny>>>,
}

impl<'a, 'py> Decoder<'a, 'py> {
    /// Decode a message in which others may be nested `depth` deep.
    pub(super) fn message(
        &mut self,
        index: usize,
        reader: Reader<'a>,
        depth: u32,
    ) -> Parsed<Bound<'py, PyAny>> {
        match &self.plans[index] {
            Plan::Native(native) => self.native(native, reader, depth),
            Plan::Foreign(class) => class
                .bind(self.py)
                .call_method1(intern!(self.py, "parse"), (reader.rest(),))
                .map_err(|error| Fault::value(self.py, error, reader.position())),
        }
    }

    fn native(
        &mut self,
        native: &'a Native,
        mut reader: Reader<'a>,
        depth: u32,
    ) -> Parsed<Bound<'py, PyAny>> {
        let base = self.slots.len();
        self.slots.resize(base + native.fields.len(), None);
        let mut unknown = Vec::new();
        while !reader.is_done() {
            let start = reader.position();
            let (number, wire) = reader.tag()?;
            if let Some(index) = native.find(number) {
                let field = &native.fields[index];
                if self
                    .field(field, base + index, wire, &mut reader, depth)
                    .map_err(|fault| fault.within(&field.label))?
                {
                    continue;
                }
            }
            reader.skip(wire)?;
            unknown.extend_from_slice(reader.since(start));
        }
        let message = self.build(native, base, &unknown).map_err(Fault::raised)?;
        self.slots.truncate(base);
        Ok(message)
    }

    /// Read a field into its slot; false if the wire type is not the field's.
    fn field(
        &mut self,
        field: &'a Field,
        slot: usize,
        wire: u8,
        reader: &mut Reader<'a>,
        depth: u32,
    ) -> Parsed<bool> {
        let element = &field.element;
        let expected = element.wire() as u8;
        match &field.shape {
            Shape::Single { .. } if wire == expected => {
                let value = self.element(element, reader, depth)?;
                self.slots[slot] = Some(value);
            }
            Shape::Repeated | Shape::Packed if wire == expected => {
                let value = self.element(element, reader, depth)?;
                self.list(slot)?.append(value).map_err(Fault::raised)?;
            }
            Shape::Packed if wire == Wire::Bytes as u8 => {
                let mut body = reader.body()?;
                let list = self.list(slot)?;
                while !body.is_done() {
                    let value = self.element(element, &mut body, depth)?;
                    list.append(value).map_err(Fault::raised)?;
                }
            }
            Shape::Map(key) if wire == Wire::Bytes as u8 => {
                let body = reader.body()?;
                self.entry(key, element, slot, body, deeper(depth, &body)?)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn list(&mut self, slot: usize) -> Parsed<Bound<'py, PyList>> {
        let list = self.slots[slot].get_or_insert_with(|| PyList::empty(self.py).into_any());
        cast_slot(list)
    }

    fn entry(
        &mut self,
        key: &'a MapKey,
        element: &'a Element,
        slot: usize,
        mut reader: Reader<'a>,
        depth: u32,
    ) -> Parsed<()> {
        let (mut name, mut value) = (None, None);
        while !reader.is_done() {
            match reader.tag()? {
                (1, wire) if wire == key.scalar.wire() as u8 => {
                    name = Some(self.scalar(key.scalar, &mut reader)?);
                }
                (2, wire) if wire == element.wire() as u8 => {
                    value = Some(self.element(element, &mut reader, depth)?);
                }
                (_, wire) => reader.skip(wire)?,
            }
        }
        let name = name.unwrap_or_else(|| key.default.bind(self.py).clone());
        let value = value.unwrap_or_else(|| key.value_default.bind(self.py).clone());
        let map = self.slots[slot].get_or_insert_with(|| PyDict::new(self.py).into_any());
        cast_slot::<PyDict>(map)?
            .set_item(name, value)
            .map_err(Fault::raised)
    }

    fn element(
        &mut self,
        element: &'a Element,
        reader: &mut Reader<'a>,
        depth: u32,
    ) -> Parsed<Bound<'py, PyAny>> {
        match element {
            Element::Scalar(scalar) => self.scalar(*scalar, reader),
            Element::Enum(members) => {
                let at = reader.position();
                let value = signed(reader.varint()?);
                self.member(members, value, at)
            }
            Element::Message(index) => {
                let body = reader.body()?;
                self.message(*index, body, deeper(depth, &body)?)
            }
            Element::Wrapped(index) => {
                let body = reader.body()?;
                self.wrapped(*index, body, deeper(depth, &body)?)
            }
            Element::Wrapper(index) => {
                let body = reader.body()?;
                self.wrapper(*index, body, deeper(depth, &body)?)
            }
            Element::Timestamp(index) => {
                let body = reader.body()?;
                let depth = deeper(depth, &body)?;
                let (seconds, nanos) = seconds_and_nanos(body)?;
                match self.tools.datetime(self.py, seconds, nanos) {
                    Some(value) => {
                        value.map_err(|error| Fault::value(self.py, error, body.position()))
                    }
                    None => self.wrapped(*index, body, depth),
                }
            }
            Element::Duration(index) => {
                let body = reader.body()?;
                let depth = deeper(depth, &body)?;
                let (seconds, nanos) = seconds_and_nanos(body)?;
                match self.tools.timedelta(self.py, seconds, nanos) {
                    Some(value) => {
                        value.map_err(|error| Fault::value(self.py, error, body.position()))
                    }
                    None => self.wrapped(*index, body, depth),
                }
            }
        }
    }

    fn member(&self, members: &Enum, value: i64, at: usize) -> Parsed<Bound<'py, PyAny>> {
        match members.members.get(&value) {
            Some(member) => Ok(member.bind(self.py).clone()),
            None => members
                .class
                .bind(self.py)
                .call1((value,))
                .map_err(|error| Fault::value(self.py, error, at)),
        }
    }

    fn wrapped(&mut self, index: usize, body: Reader<'a>, depth: u32) -> Parsed<Bound<'py, PyAny>> {
        self.message(index, body, depth)?
            .call_method0(intern!(self.py, "to_wrapped"))
            .map_err(|error| Fault::value(self.py, error, body.position()))
    }

    fn wrapper(
        &mut self,
        index: usize,
        mut body: Reader<'a>,
        depth: u32,
    ) -> Parsed<Bound<'py, PyAny>> {
        let Plan::Native(native) = &self.plans[index] else {
            return self.wrapped(index, body, depth);
        };
        let mut value = None;
        while !body.is_done() {
            let (number, wire) = body.tag()?;
            match native.find(number).map(|index| &native.fields[index]) {
                Some(field) if wire == field.element.wire() as u8 => {
                    value = Some(self.element(&field.element, &mut body, depth)?);
                }
                _ => body.skip(wire)?,
            }
        }
        Ok(value.unwrap_or_else(|| match native.fields.first() {
            Some(field) => self.default(field),
            None => self.py.None().into_bound(self.py),
        }))
    }

    fn scalar(&self, scalar: Scalar, reader: &mut Reader<'a>) -> Parsed<Bound<'py, PyAny>> {
        let py = self.py;
        // Narrow types keep their low bits, as betterproto2 and protobuf do.
        #[allow(clippy::cast_possible_truncation)]
        Ok(match scalar {
            Scalar::Bool => PyBool::new(py, reader.bool()?).to_owned().into_any(),
            Scalar::Int32 => int(py, i64::from(reader.varint()? as i32)),
            Scalar::Int64 => int(py, signed(reader.varint()?)),
            Scalar::Uint32 => int(py, i64::from(reader.varint()? as u32)),
            Scalar::Uint64 => uint(py, reader.varint()?),
            Scalar::Sint32 => int(py, unzigzag(u64::from(reader.varint()? as u32))),
            Scalar::Sint64 => int(py, unzigzag(reader.varint()?)),
            Scalar::Fixed32 => int(py, i64::from(u32::from_le_bytes(reader.fixed32()?))),
            Scalar::Fixed64 => uint(py, u64::from_le_bytes(reader.fixed64()?)),
            Scalar::Sfixed32 => int(py, i64::from(i32::from_le_bytes(reader.fixed32()?))),
            Scalar::Sfixed64 => int(py, i64::from_le_bytes(reader.fixed64()?)),
            Scalar::Float => {
                let value = f32::from_le_bytes(reader.fixed32()?);
                PyFloat::new(py, f64::from(value)).into_any()
            }
            Scalar::Double => PyFloat::new(py, f64::from_le_bytes(reader.fixed64()?)).into_any(),
            Scalar::String => {
                let body = reader.body()?;
                PyString::from_bytes(py, body.rest())
                    .map_err(|error| Fault::value(py, error, body.position()))?
                    .into_any()
            }
            Scalar::Bytes => PyBytes::new(py, reader.body()?.rest()).into_any(),
        })
    }

    fn build(
        &mut self,
        native: &'a Native,
        base: usize,
        unknown: &[u8],
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = self.py;
        let unknown_fields = intern!(py, "_unknown_fields");
        if native.bare {
            let message = self
                .tools
                .object_new
                .bind(py)
                .call(native.new_args.bind(py), None)?;
            for (field, slot) in native.fields.iter().zip(base..) {
                let value = self.slots[slot].take();
                let value = value.unwrap_or_else(|| self.default(field));
                message.setattr(field.name.bind(py), value)?;
            }
            message.setattr(unknown_fields, PyBytes::new(py, unknown))?;
            return Ok(message);
        }
        let message = native.class.bind(py).call0()?;
        for (field, slot) in native.fields.iter().zip(base..) {
            let Some(value) = self.slots[slot].take() else {
                continue;
            };
            let name = field.name.bind(py);
            match field.shape {
                Shape::Single { .. } => message.setattr(name, value)?,
                Shape::Map(_) => drop(
                    message
                        .getattr(name)?
                        .call_method1(intern!(py, "update"), (value,))?,
                ),
                Shape::Repeated | Shape::Packed => drop(
                    message
                        .getattr(name)?
                        .call_method1(intern!(py, "extend"), (value,))?,
                ),
            }
        }
        if !unknown.is_empty() {
            let known = message.getattr(unknown_fields)?;
            message.setattr(unknown_fields, known.add(PyBytes::new(py, unknown))?)?;
        }
        Ok(message)
    }

    fn default(&self, field: &Field) -> Bound<'py, PyAny> {
        match &field.shape {
            Shape::Single { default, .. } => default.bind(self.py).clone(),
            Shape::Repeated | Shape::Packed => PyList::empty(self.py).into_any(),
            Shape::Map(_) => PyDict::new(self.py).into_any(),
        }
    }
}

/// The nesting that is left to a message inside of another.
fn deeper(depth: u32, body: &Reader<'_>) -> Parsed<u32> {
    depth
        .checked_sub(1)
        .ok_or_else(|| Fault::new(Flaw::Depth, body.position()))
}

/// The fields of a Timestamp or Duration.
fn seconds_and_nanos(mut body: Reader<'_>) -> Parsed<(i64, i64)> {
    let (mut seconds, mut nanos) = (0, 0);
    while !body.is_done() {
        match body.tag()? {
            (1, 0) => seconds = signed(body.varint()?),
            (2, 0) => {
                // An int32: the low bits count.
                #[allow(clippy::cast_possible_truncation)]
                let low = body.varint()? as i32;
                nanos = i64::from(low);
            }
            (_, wire) => body.skip(wire)?,
        }
    }
    Ok((seconds, nanos))
}

fn cast_slot<'py, T: pyo3::PyTypeCheck>(slot: &Bound<'py, PyAny>) -> Parsed<Bound<'py, T>> {
    match slot.cast::<T>() {
        Ok(value) => Ok(value.clone()),
        Err(error) => Err(Fault::raised(error.into())),
    }
}

fn int(py: Python<'_>, value: i64) -> Bound<'_, PyAny> {
    PyInt::new(py, value).into_any()
}

fn uint(py: Python<'_>, value: u64) -> Bound<'_, PyAny> {
    PyInt::new(py, value).into_any()
}
