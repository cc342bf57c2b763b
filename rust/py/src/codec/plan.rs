//! What the codec knows about a message class, worked out once.
//!
//! `bascule.rpc._codec_plan` reads betterproto2's field metadata and hands it over as tuples; the
//! types here are what those tuples become.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple, PyType};
use rustc_hash::FxHashMap;

use super::wire::{MAX_NUMBER, Tag, Wire};

/// Numbers up to this one are looked up in a table; protobuf recommends low numbers.
const DENSE: u32 = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scalar {
    Bool,
    Int32,
    Int64,
    Uint32,
    Uint64,
    Sint32,
    Sint64,
    Fixed32,
    Fixed64,
    Sfixed32,
    Sfixed64,
    Float,
    Double,
    String,
    Bytes,
}

/// The type of one value.
pub(super) enum Element {
    Scalar(Scalar),
    Enum(Enum),
    /// The plan with this index.
    Message(usize),
    /// A message that its class turns into a plain value, by `to_wrapped` and `from_wrapped`.
    Wrapped(usize),
    /// `google.protobuf.Timestamp` as an aware `datetime`.
    Timestamp(usize),
    /// `google.protobuf.Duration` as a `timedelta`.
    Duration(usize),
    /// `google.protobuf.Int32Value` and the like, as the value that they hold.
    Wrapper(usize),
}

pub(super) struct Enum {
    pub(super) class: Py<PyType>,
    pub(super) members: FxHashMap<i64, Py<PyAny>>,
}

pub(super) enum Shape {
    /// `explicit` fields are None when unset and are written even when zero.
    Single {
        default: Py<PyAny>,
        explicit: bool,
    },
    Repeated,
    Packed,
    Map(MapKey),
}

pub(super) struct MapKey {
    pub(super) scalar: Scalar,
    pub(super) tag: Tag,
    pub(super) value_tag: Tag,
    /// What betterproto2 puts where an entry lacks its key or its value.
    pub(super) default: Py<PyAny>,
    pub(super) value_default: Py<PyAny>,
}

pub(super) struct Field {
    pub(super) name: Py<PyString>,
    pub(super) label: String,
    pub(super) tag: Tag,
    pub(super) shape: Shape,
    pub(super) element: Element,
}

pub(super) struct Native {
    pub(super) class: Py<PyType>,
    /// `(class,)`: the arguments of `object.__new__`.
    pub(super) new_args: Py<PyTuple>,
    /// True if creating an instance does no more than to set the fields.
    pub(super) bare: bool,
    /// In order of declaration: the order in which betterproto2 writes them.
    pub(super) fields: Vec<Field>,
    dense: Vec<Option<u16>>,
    sparse: FxHashMap<u32, u16>,
}

pub(super) enum Plan {
    Native(Native),
    /// A class that only betterproto2 itself can handle.
    Foreign(Py<PyType>),
}

/// `(class, how, fields)`, how being `bare`, `call` or `foreign`.
#[derive(FromPyObject)]
pub(super) struct PlanSpec<'py>(Bound<'py, PyType>, String, Vec<FieldSpec<'py>>);

/// `(name, number, shape, default, element, key or None)`.
#[derive(FromPyObject)]
struct FieldSpec<'py>(
    String,
    u32,
    String,
    Bound<'py, PyAny>,
    ElementSpec<'py>,
    Option<KeySpec<'py>>,
);

/// `(kind, enum class or None, plan index or None)`.
#[derive(FromPyObject)]
struct ElementSpec<'py>(String, Option<Bound<'py, PyType>>, Option<usize>);

/// `(kind, default)` of a map's key.
#[derive(FromPyObject)]
struct KeySpec<'py>(String, Bound<'py, PyAny>);

impl Scalar {
    fn parse(kind: &str) -> PyResult<Self> {
        Ok(match kind {
            "bool" => Self::Bool,
            "int32" => Self::Int32,
            "int64" => Self::Int64,
            "uint32" => Self::Uint32,
            "uint64" => Self::Uint64,
            "sint32" => Self::Sint32,
            "sint64" => Self::Sint64,
            "fixed32" => Self::Fixed32,
            "fixed64" => Self::Fixed64,
            "sfixed32" => Self::Sfixed32,
            "sfixed64" => Self::Sfixed64,
            "float" => Self::Float,
            "double" => Self::Double,
            "string" => Self::String,
            "bytes" => Self::Bytes,
            _ => return Err(invalid(format!("unknown field type {kind:?}"))),
        })
    }

    pub(super) fn wire(self) -> Wire {
        match self {
            Self::Bool
            | Self::Int32
            | Self::Int64
            | Self::Uint32
            | Self::Uint64
            | Self::Sint32
            | Self::Sint64 => Wire::Varint,
            Self::Fixed32 | Self::Sfixed32 | Self::Float => Wire::Fixed32,
            Self::Fixed64 | Self::Sfixed64 | Self::Double => Wire::Fixed64,
            Self::String | Self::Bytes => Wire::Bytes,
        }
    }
}

impl Element {
    fn build(spec: ElementSpec<'_>, plans: usize) -> PyResult<Self> {
        let ElementSpec(kind, class, index) = spec;
        if let Some(index) = index {
            if index >= plans {
                return Err(invalid(format!("there is no message {index}")));
            }
            return Ok(match kind.as_str() {
                "message" => Self::Message(index),
                "wrapped" => Self::Wrapped(index),
                "timestamp" => Self::Timestamp(index),
                "duration" => Self::Duration(index),
                "wrapper" => Self::Wrapper(index),
                _ => return Err(invalid(format!("unknown message type {kind:?}"))),
            });
        }
        if let Some(class) = class {
            let mut members = FxHashMap::default();
            for member in class.try_iter()? {
                let member = member?;
                members.insert(member.extract()?, member.unbind());
            }
            return Ok(Self::Enum(Enum {
                class: class.unbind(),
                members,
            }));
        }
        Scalar::parse(&kind).map(Self::Scalar)
    }

    pub(super) fn wire(&self) -> Wire {
        match self {
            Self::Scalar(scalar) => scalar.wire(),
            Self::Enum(_) => Wire::Varint,
            _ => Wire::Bytes,
        }
    }
}

impl Field {
    fn build(py: Python<'_>, spec: FieldSpec<'_>, plans: usize) -> PyResult<Self> {
        let FieldSpec(label, number, shape, default, element, key) = spec;
        if number == 0 || number > MAX_NUMBER {
            return Err(invalid(format!("{label} has the field number {number}")));
        }
        let element = Element::build(element, plans)?;
        let wire = element.wire();
        let (shape, wire) = match (shape.as_str(), key) {
            ("single", None) => {
                let explicit = default.is_none();
                let default = default.unbind();
                (Shape::Single { default, explicit }, wire)
            }
            ("repeated", None) if wire == Wire::Bytes => (Shape::Repeated, wire),
            ("repeated", None) => (Shape::Packed, Wire::Bytes),
            ("map", Some(KeySpec(kind, key_default))) => {
                let scalar = Scalar::parse(&kind)?;
                let key = MapKey {
                    scalar,
                    tag: Tag::new(1, scalar.wire()),
                    value_tag: Tag::new(2, wire),
                    default: key_default.unbind(),
                    value_default: default.unbind(),
                };
                (Shape::Map(key), Wire::Bytes)
            }
            (shape, _) => return Err(invalid(format!("{label} has the shape {shape:?}"))),
        };
        Ok(Self {
            name: PyString::intern(py, &label).unbind(),
            label,
            tag: Tag::new(number, wire),
            shape,
            element,
        })
    }
}

impl Plan {
    pub(super) fn build(spec: PlanSpec<'_>, plans: usize) -> PyResult<Self> {
        let PlanSpec(class, how, specs) = spec;
        let py = class.py();
        let bare = match how.as_str() {
            "foreign" => return Ok(Self::Foreign(class.unbind())),
            "bare" => true,
            "call" => false,
            _ => return Err(invalid(format!("unknown way {how:?} to make a message"))),
        };
        let mut native = Native {
            new_args: PyTuple::new(py, [&class])?.unbind(),
            class: class.unbind(),
            bare,
            fields: Vec::with_capacity(specs.len()),
            dense: Vec::new(),
            sparse: FxHashMap::default(),
        };
        for (index, spec) in specs.into_iter().enumerate() {
            let index = u16::try_from(index)?;
            let number = spec.1;
            native.fields.push(Field::build(py, spec, plans)?);
            if number < DENSE {
                let slot = usize::try_from(number)?;
                if native.dense.len() <= slot {
                    native.dense.resize(slot + 1, None);
                }
                native.dense[slot] = Some(index);
            } else {
                native.sparse.insert(number, index);
            }
        }
        Ok(Self::Native(native))
    }

    pub(super) fn class(&self) -> &Py<PyType> {
        match self {
            Self::Native(native) => &native.class,
            Self::Foreign(class) => class,
        }
    }
}

impl Native {
    /// The index of the field with this number.
    #[inline]
    pub(super) fn find(&self, number: u32) -> Option<usize> {
        let index = if number < DENSE {
            *self.dense.get(usize::try_from(number).ok()?)?
        } else {
            self.sparse.get(&number).copied()
        };
        index.map(usize::from)
    }
}

fn invalid(message: String) -> PyErr {
    PyValueError::new_err(message)
}
