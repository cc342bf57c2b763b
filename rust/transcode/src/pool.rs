//! Message and enum types compiled into tables that both directions walk.

use rustc_hash::FxHashMap;

use crate::error::SchemaError;
use crate::schema::{EnumType, Features, FieldType, File, FileSet, MessageType};
use crate::text::put_string;
use crate::wire::{self, Tag};

/// Field numbers below this are found by index, the others by binary search.
const DENSE: usize = 256;
const ABSENT: u16 = u16::MAX;

/// The types of a descriptor set.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    messages: Vec<Message>,
    enums: Vec<Enum>,
    by_name: FxHashMap<Box<str>, Type>,
}

#[derive(Clone, Copy, Debug)]
enum Type {
    Message(u32),
    Enum(u32),
}

#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) full_name: Box<str>,
    pub(crate) form: Form,
    /// In the order of their numbers.
    pub(crate) fields: Vec<Field>,
    pub(crate) oneofs: Vec<Box<str>>,
    by_name: FxHashMap<Box<str>, u16>,
    by_number: Vec<u16>,
}

/// The JSON form of a message type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Regular,
    Wrapper,
    Any,
    Duration,
    FieldMask,
    ListValue,
    Struct,
    Timestamp,
    Value,
}

#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) name: Box<str>,
    pub(crate) json_name: Box<str>,
    /// The name in quotes and a colon, as it is printed.
    pub(crate) json_key: Box<[u8]>,
    pub(crate) number: u32,
    pub(crate) tag: Tag,
    pub(crate) packed_tag: Tag,
    pub(crate) kind: Kind,
    pub(crate) shape: Shape,
    /// Index of the real oneof that it belongs to; the one of a proto3 `optional` is none.
    pub(crate) oneof: Option<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Absent and default are the same.
    Implicit,
    /// Absent differs from default.
    Explicit,
    Expanded,
    Packed,
    /// The field's kind is the entry message.
    Map,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Double,
    Float,
    Int64,
    Uint64,
    Int32,
    Fixed64,
    Fixed32,
    Bool,
    String,
    Group,
    Message(u32),
    Bytes,
    Uint32,
    Enum(u32),
    Sfixed32,
    Sfixed64,
    Sint32,
    Sint64,
}

impl Kind {
    pub(crate) fn wire(self) -> u8 {
        match self {
            Self::Double | Self::Fixed64 | Self::Sfixed64 => wire::FIXED64,
            Self::Float | Self::Fixed32 | Self::Sfixed32 => wire::FIXED32,
            Self::String | Self::Bytes | Self::Message(_) | Self::Group => wire::BYTES,
            _ => wire::VARINT,
        }
    }

    pub(crate) fn message(self) -> Option<u32> {
        match self {
            Self::Message(index) => Some(index),
            _ => None,
        }
    }
}

impl Field {
    pub(crate) fn is_repeated(&self) -> bool {
        matches!(self.shape, Shape::Expanded | Shape::Packed | Shape::Map)
    }
}

#[derive(Debug)]
pub(crate) struct Enum {
    pub(crate) full_name: Box<str>,
    pub(crate) closed: bool,
    pub(crate) is_null: bool,
    by_name: FxHashMap<Box<str>, i32>,
    /// The first name of each number, in quotes.
    by_number: FxHashMap<i32, Box<[u8]>>,
}

impl Enum {
    pub(crate) fn number(&self, name: &str) -> Option<i32> {
        self.by_name.get(name).copied()
    }

    pub(crate) fn quoted_name(&self, number: i32) -> Option<&[u8]> {
        self.by_number.get(&number).map(|name| &**name)
    }
}

impl Message {
    pub(crate) fn by_name(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).map(|index| usize::from(*index))
    }

    #[inline]
    pub(crate) fn by_number(&self, number: u32) -> Option<usize> {
        let dense = self.by_number.get(number as usize).copied();
        match dense {
            Some(ABSENT) => None,
            Some(index) => Some(usize::from(index)),
            None => self
                .fields
                .binary_search_by_key(&number, |field| field.number)
                .ok(),
        }
    }
}

impl Pool {
    /// Compile the types of a decoded set.
    pub(crate) fn new(set: &FileSet) -> Result<Self, SchemaError> {
        let mut pool = Self::default();
        let mut pending = Vec::new();
        for file in &set.file {
            let features = file_features(file);
            let scope = Scope {
                prefix: &file.package,
                features,
            };
            pool.declare(&file.message_type, &file.enum_type, &scope, &mut pending)?;
        }
        for message in &pending {
            let compiled = pool.compile(message, &pending)?;
            pool.messages.push(compiled);
        }
        pool.check()?;
        Ok(pool)
    }

    #[inline]
    pub(crate) fn message(&self, index: u32) -> &Message {
        &self.messages[index as usize]
    }

    #[inline]
    pub(crate) fn enumeration(&self, index: u32) -> &Enum {
        &self.enums[index as usize]
    }

    pub(crate) fn find(&self, full_name: &str) -> Option<u32> {
        match self.by_name.get(full_name) {
            Some(Type::Message(index)) => Some(*index),
            _ => None,
        }
    }

    /// Resolve a type reference of a descriptor: a full name with a leading dot.
    pub(crate) fn resolve(&self, reference: &str) -> Result<u32, SchemaError> {
        let full_name = reference.strip_prefix('.').unwrap_or(reference);
        self.find(full_name).ok_or_else(|| missing(full_name))
    }

    /// Give each type its index, so that fields can refer to types that come later.
    fn declare<'s>(
        &mut self,
        messages: &'s [MessageType],
        enums: &[EnumType],
        scope: &Scope<'_>,
        pending: &mut Vec<Pending<'s>>,
    ) -> Result<(), SchemaError> {
        for declared in enums {
            let full_name = scope.name(&declared.name);
            let index = index_of(self.enums.len())?;
            self.enums
                .push(compile_enum(declared, &full_name, scope.features));
            self.by_name.insert(full_name.into(), Type::Enum(index));
        }
        for declared in messages {
            let full_name = scope.name(&declared.name);
            let options = declared.options.as_ref();
            let features = scope
                .features
                .overridden_by(options.and_then(|options| options.features));
            let index = index_of(pending.len())?;
            if self
                .by_name
                .insert(full_name.clone().into(), Type::Message(index))
                .is_some()
            {
                return Err(SchemaError(format!(
                    "the type {full_name} is declared twice"
                )));
            }
            pending.push(Pending {
                declared,
                full_name: full_name.clone(),
                features,
            });
            let inner = Scope {
                prefix: &full_name,
                features,
            };
            self.declare(&declared.nested_type, &declared.enum_type, &inner, pending)?;
        }
        Ok(())
    }

    fn compile(&self, message: &Pending<'_>, all: &[Pending<'_>]) -> Result<Message, SchemaError> {
        let full_name = message.full_name.as_str();
        let declared = message.declared.field.iter();
        let mut fields = declared
            .map(|field| self.compile_field(field, message, all))
            .collect::<Result<Vec<_>, _>>()?;
        fields.sort_by_key(|field| field.number);
        // One less than the type holds: ABSENT is no index.
        if fields.len() >= usize::from(ABSENT) {
            return Err(SchemaError(format!("{full_name} has too many fields")));
        }
        let mut by_name = FxHashMap::default();
        for (field, index) in fields.iter().zip(0u16..) {
            by_name.insert(field.name.clone(), index);
        }
        // After the others: where names collide, the JSON name is the one that is printed.
        for (field, index) in fields.iter().zip(0u16..) {
            by_name.insert(field.json_name.clone(), index);
        }
        let largest = fields.last().map_or(0, |field| field.number as usize);
        let mut by_number = vec![ABSENT; DENSE.min(largest + 1)];
        for (field, index) in fields.iter().zip(0u16..) {
            if let Some(slot) = by_number.get_mut(field.number as usize) {
                *slot = index;
            }
        }
        let oneofs = message.declared.oneof_decl.iter();
        let oneofs = oneofs
            .map(|oneof| oneof.name.as_str().into())
            .collect::<Vec<_>>();
        if fields.iter().any(|field| {
            field
                .oneof
                .is_some_and(|at| usize::from(at) >= oneofs.len())
        }) {
            return Err(SchemaError(format!(
                "{full_name} has a field of an undeclared oneof"
            )));
        }
        Ok(Message {
            form: form_of(full_name),
            oneofs,
            full_name: full_name.into(),
            fields,
            by_name,
            by_number,
        })
    }

    fn compile_field(
        &self,
        field: &FieldType,
        owner: &Pending<'_>,
        all: &[Pending<'_>],
    ) -> Result<Field, SchemaError> {
        let fail =
            |what: &str| SchemaError(format!("field {}.{}: {what}", owner.full_name, field.name));
        let options = field.options.as_ref();
        let own = options.and_then(|options| options.features);
        let features = owner.features.overridden_by(own);
        let number = u32::try_from(field.number).unwrap_or(0);
        if number == 0 || number >= 1 << 29 {
            return Err(fail("its number is out of range"));
        }
        let kind = self
            .kind_of(field, features)
            .map_err(|reason| fail(&reason))?;
        let oneof = match field.oneof_index {
            Some(index) if !field.proto3_optional => {
                Some(u16::try_from(index).map_err(|_| fail("its oneof is out of range"))?)
            }
            _ => None,
        };
        let packs = options
            .and_then(|options| options.packed)
            .unwrap_or(features.repeated_field_encoding == Features::REPEATED_PACKED);
        let is_map = kind
            .message()
            .is_some_and(|index| is_map_entry(&all[index as usize]));
        let shape = if field.label == FieldType::LABEL_REPEATED {
            match kind.wire() {
                _ if is_map => Shape::Map,
                wire::BYTES => Shape::Expanded,
                _ if packs => Shape::Packed,
                _ => Shape::Expanded,
            }
        } else {
            let explicit = field.oneof_index.is_some()
                || kind.message().is_some()
                || features.field_presence != Features::PRESENCE_IMPLICIT;
            if explicit {
                Shape::Explicit
            } else {
                Shape::Implicit
            }
        };
        let json_name = match field.json_name.as_str() {
            "" => camel_case(&field.name),
            given => given.to_owned(),
        };
        let mut json_key = quoted(&json_name).into_vec();
        json_key.push(b':');
        Ok(Field {
            name: field.name.as_str().into(),
            json_name: json_name.into(),
            json_key: json_key.into(),
            number,
            tag: Tag::new(number, kind.wire()),
            packed_tag: Tag::new(number, wire::BYTES),
            kind,
            shape,
            oneof,
        })
    }

    fn kind_of(&self, field: &FieldType, features: Features) -> Result<Kind, String> {
        let full_name = field
            .type_name
            .strip_prefix('.')
            .unwrap_or(&field.type_name);
        let referred = self.by_name.get(full_name).copied();
        Ok(match (field.r#type, referred) {
            (1, _) => Kind::Double,
            (2, _) => Kind::Float,
            (3, _) => Kind::Int64,
            (4, _) => Kind::Uint64,
            (5, _) => Kind::Int32,
            (6, _) => Kind::Fixed64,
            (7, _) => Kind::Fixed32,
            (8, _) => Kind::Bool,
            (9, _) => Kind::String,
            (10, _) => Kind::Group,
            (11, _) if features.message_encoding == Features::MESSAGE_DELIMITED => Kind::Group,
            (11, Some(Type::Message(index))) => Kind::Message(index),
            (12, _) => Kind::Bytes,
            (13, _) => Kind::Uint32,
            (14, Some(Type::Enum(index))) => Kind::Enum(index),
            (15, _) => Kind::Sfixed32,
            (16, _) => Kind::Sfixed64,
            (17, _) => Kind::Sint32,
            (18, _) => Kind::Sint64,
            (11 | 14, _) => return Err(missing(full_name).0),
            (other, _) => return Err(format!("unknown type {other}")),
        })
    }

    /// Indexing relies on these: a map entry's key and value, and what a wrapper wraps.
    fn check(&self) -> Result<(), SchemaError> {
        for message in &self.messages {
            for field in &message.fields {
                let Some(entry) = field.kind.message() else {
                    continue;
                };
                let numbers = self.message(entry).fields.iter().map(|field| field.number);
                if field.shape == Shape::Map && !numbers.eq([1, 2]) {
                    let name = &self.message(entry).full_name;
                    return Err(SchemaError(format!("{name} is no map entry")));
                }
            }
            if message.form == Form::Wrapper && message.fields.len() != 1 {
                let name = &message.full_name;
                return Err(SchemaError(format!("{name} is not the well-known type")));
            }
        }
        Ok(())
    }
}

/// A message type that has its index, but not yet its table.
struct Pending<'s> {
    declared: &'s MessageType,
    full_name: String,
    features: Features,
}

fn is_map_entry(message: &Pending<'_>) -> bool {
    message
        .declared
        .options
        .as_ref()
        .is_some_and(|options| options.map_entry)
}

/// Where types are declared: a package or a message.
struct Scope<'s> {
    prefix: &'s str,
    features: Features,
}

impl Scope<'_> {
    fn name(&self, name: &str) -> String {
        match self.prefix {
            "" => name.to_owned(),
            prefix => format!("{prefix}.{name}"),
        }
    }
}

fn file_features(file: &File) -> Features {
    let own = file.options.as_ref().and_then(|options| options.features);
    Features::of_syntax(&file.syntax).overridden_by(own)
}

fn compile_enum(declared: &EnumType, full_name: &str, features: Features) -> Enum {
    let own = declared
        .options
        .as_ref()
        .and_then(|options| options.features);
    let mut by_number = FxHashMap::default();
    for value in &declared.value {
        by_number
            .entry(value.number)
            .or_insert_with(|| quoted(&value.name));
    }
    let names = declared.value.iter();
    Enum {
        closed: features.overridden_by(own).enum_type == Features::ENUM_CLOSED,
        is_null: full_name == "google.protobuf.NullValue",
        full_name: full_name.into(),
        by_name: names
            .map(|value| (value.name.as_str().into(), value.number))
            .collect(),
        by_number,
    }
}

fn form_of(full_name: &str) -> Form {
    match full_name.strip_prefix("google.protobuf.") {
        Some("Any") => Form::Any,
        Some("Duration") => Form::Duration,
        Some("FieldMask") => Form::FieldMask,
        Some("ListValue") => Form::ListValue,
        Some("Struct") => Form::Struct,
        Some("Timestamp") => Form::Timestamp,
        Some("Value") => Form::Value,
        Some(
            "BoolValue" | "BytesValue" | "DoubleValue" | "FloatValue" | "Int32Value" | "Int64Value"
            | "StringValue" | "UInt32Value" | "UInt64Value",
        ) => Form::Wrapper,
        _ => Form::Regular,
    }
}

/// `json_name` of a field for which the compiler gave none.
fn camel_case(name: &str) -> String {
    let mut after_underscore = false;
    let mut result = String::with_capacity(name.len());
    for char in name.chars() {
        if char == '_' {
            after_underscore = true;
        } else {
            result.push(if after_underscore {
                char.to_ascii_uppercase()
            } else {
                char
            });
            after_underscore = false;
        }
    }
    result
}

fn quoted(text: &str) -> Box<[u8]> {
    let mut out = Vec::with_capacity(text.len() + 2);
    put_string(&mut out, text);
    out.into()
}

fn missing(full_name: &str) -> SchemaError {
    SchemaError(format!(
        "the descriptor set has no type {full_name:?}: was it made with imports?"
    ))
}

fn index_of(len: usize) -> Result<u32, SchemaError> {
    u32::try_from(len).map_err(|_| SchemaError("the descriptor set has too many types".to_owned()))
}
