//! The part of `google/protobuf/descriptor.proto` and `google/api/http.proto` that routes and
//! translation need.
//!
//! Own types, because `prost-types` drops the options' extensions, and the routes are in one.

use prost::Message;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct FileSet {
    #[prost(message, repeated, tag = "1")]
    pub(crate) file: Vec<File>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct File {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(string, tag = "2")]
    pub(crate) package: String,
    #[prost(message, repeated, tag = "4")]
    pub(crate) message_type: Vec<MessageType>,
    #[prost(message, repeated, tag = "5")]
    pub(crate) enum_type: Vec<EnumType>,
    #[prost(message, repeated, tag = "6")]
    pub(crate) service: Vec<Service>,
    #[prost(message, optional, tag = "8")]
    pub(crate) options: Option<FileOptions>,
    #[prost(string, tag = "12")]
    pub(crate) syntax: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct FileOptions {
    #[prost(message, optional, tag = "50")]
    pub(crate) features: Option<Features>,
}

/// `FeatureSet` of an edition; zero is "as the parent has it".
#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct Features {
    #[prost(int32, tag = "1")]
    pub(crate) field_presence: i32,
    #[prost(int32, tag = "2")]
    pub(crate) enum_type: i32,
    #[prost(int32, tag = "3")]
    pub(crate) repeated_field_encoding: i32,
    #[prost(int32, tag = "5")]
    pub(crate) message_encoding: i32,
}

impl Features {
    pub(crate) const PRESENCE_EXPLICIT: i32 = 1;
    pub(crate) const PRESENCE_IMPLICIT: i32 = 2;
    pub(crate) const ENUM_OPEN: i32 = 1;
    pub(crate) const ENUM_CLOSED: i32 = 2;
    pub(crate) const REPEATED_PACKED: i32 = 1;
    pub(crate) const REPEATED_EXPANDED: i32 = 2;
    pub(crate) const MESSAGE_DELIMITED: i32 = 2;

    /// The defaults of a syntax. Editions (2023 on) share one set.
    pub(crate) fn of_syntax(syntax: &str) -> Self {
        let (field_presence, enum_type, repeated_field_encoding) = match syntax {
            "proto3" => (
                Self::PRESENCE_IMPLICIT,
                Self::ENUM_OPEN,
                Self::REPEATED_PACKED,
            ),
            "editions" => (
                Self::PRESENCE_EXPLICIT,
                Self::ENUM_OPEN,
                Self::REPEATED_PACKED,
            ),
            _ => (
                Self::PRESENCE_EXPLICIT,
                Self::ENUM_CLOSED,
                Self::REPEATED_EXPANDED,
            ),
        };
        Self {
            field_presence,
            enum_type,
            repeated_field_encoding,
            message_encoding: 1,
        }
    }

    pub(crate) fn overridden_by(self, inner: Option<Self>) -> Self {
        let inner = inner.unwrap_or_default();
        let pick = |inner, outer| if inner == 0 { outer } else { inner };
        Self {
            field_presence: pick(inner.field_presence, self.field_presence),
            enum_type: pick(inner.enum_type, self.enum_type),
            repeated_field_encoding: pick(
                inner.repeated_field_encoding,
                self.repeated_field_encoding,
            ),
            message_encoding: pick(inner.message_encoding, self.message_encoding),
        }
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct MessageType {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(message, repeated, tag = "2")]
    pub(crate) field: Vec<FieldType>,
    #[prost(message, repeated, tag = "3")]
    pub(crate) nested_type: Vec<MessageType>,
    #[prost(message, repeated, tag = "4")]
    pub(crate) enum_type: Vec<EnumType>,
    #[prost(message, optional, tag = "7")]
    pub(crate) options: Option<MessageOptions>,
    #[prost(message, repeated, tag = "8")]
    pub(crate) oneof_decl: Vec<Oneof>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Oneof {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct MessageOptions {
    #[prost(bool, tag = "7")]
    pub(crate) map_entry: bool,
    #[prost(message, optional, tag = "12")]
    pub(crate) features: Option<Features>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct FieldType {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(int32, tag = "3")]
    pub(crate) number: i32,
    #[prost(int32, tag = "4")]
    pub(crate) label: i32,
    #[prost(int32, tag = "5")]
    pub(crate) r#type: i32,
    #[prost(string, tag = "6")]
    pub(crate) type_name: String,
    #[prost(message, optional, tag = "8")]
    pub(crate) options: Option<FieldOptions>,
    #[prost(int32, optional, tag = "9")]
    pub(crate) oneof_index: Option<i32>,
    #[prost(string, tag = "10")]
    pub(crate) json_name: String,
    #[prost(bool, tag = "17")]
    pub(crate) proto3_optional: bool,
}

impl FieldType {
    pub(crate) const LABEL_REPEATED: i32 = 3;
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct FieldOptions {
    #[prost(bool, optional, tag = "2")]
    pub(crate) packed: Option<bool>,
    #[prost(message, optional, tag = "21")]
    pub(crate) features: Option<Features>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct EnumType {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(message, repeated, tag = "2")]
    pub(crate) value: Vec<EnumValue>,
    #[prost(message, optional, tag = "3")]
    pub(crate) options: Option<EnumOptions>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct EnumOptions {
    #[prost(message, optional, tag = "7")]
    pub(crate) features: Option<Features>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct EnumValue {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(int32, tag = "2")]
    pub(crate) number: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Service {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(message, repeated, tag = "2")]
    pub(crate) method: Vec<Method>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Method {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(string, tag = "2")]
    pub(crate) input_type: String,
    #[prost(string, tag = "3")]
    pub(crate) output_type: String,
    #[prost(message, optional, tag = "4")]
    pub(crate) options: Option<MethodOptions>,
    #[prost(bool, tag = "5")]
    pub(crate) client_streaming: bool,
    #[prost(bool, tag = "6")]
    pub(crate) server_streaming: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct MethodOptions {
    /// The extension `google.api.http`.
    #[prost(message, optional, tag = "72295728")]
    pub(crate) http: Option<HttpRule>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct HttpRule {
    #[prost(oneof = "Pattern", tags = "2, 3, 4, 5, 6, 8")]
    pub(crate) pattern: Option<Pattern>,
    #[prost(string, tag = "7")]
    pub(crate) body: String,
    #[prost(message, repeated, tag = "11")]
    pub(crate) additional_bindings: Vec<HttpRule>,
    #[prost(string, tag = "12")]
    pub(crate) response_body: String,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum Pattern {
    #[prost(string, tag = "2")]
    Get(String),
    #[prost(string, tag = "3")]
    Put(String),
    #[prost(string, tag = "4")]
    Post(String),
    #[prost(string, tag = "5")]
    Delete(String),
    #[prost(string, tag = "6")]
    Patch(String),
    #[prost(message, tag = "8")]
    Custom(CustomPattern),
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct CustomPattern {
    #[prost(string, tag = "1")]
    pub(crate) kind: String,
    #[prost(string, tag = "2")]
    pub(crate) path: String,
}
