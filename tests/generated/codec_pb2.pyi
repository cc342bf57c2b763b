import datetime

from google.protobuf import any_pb2 as _any_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import empty_pb2 as _empty_pb2
from google.protobuf import field_mask_pb2 as _field_mask_pb2
from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf import wrappers_pb2 as _wrappers_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Level(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LEVEL_UNSPECIFIED: _ClassVar[Level]
    LEVEL_LOW: _ClassVar[Level]
    LEVEL_HIGH: _ClassVar[Level]
    LEVEL_BELOW: _ClassVar[Level]
LEVEL_UNSPECIFIED: Level
LEVEL_LOW: Level
LEVEL_HIGH: Level
LEVEL_BELOW: Level

class Scalars(_message.Message):
    __slots__ = ("a_bool", "a_int32", "a_int64", "a_uint32", "a_uint64", "a_sint32", "a_sint64", "a_fixed32", "a_fixed64", "a_sfixed32", "a_sfixed64", "a_float", "a_double", "a_string", "a_bytes", "a_level")
    A_BOOL_FIELD_NUMBER: _ClassVar[int]
    A_INT32_FIELD_NUMBER: _ClassVar[int]
    A_INT64_FIELD_NUMBER: _ClassVar[int]
    A_UINT32_FIELD_NUMBER: _ClassVar[int]
    A_UINT64_FIELD_NUMBER: _ClassVar[int]
    A_SINT32_FIELD_NUMBER: _ClassVar[int]
    A_SINT64_FIELD_NUMBER: _ClassVar[int]
    A_FIXED32_FIELD_NUMBER: _ClassVar[int]
    A_FIXED64_FIELD_NUMBER: _ClassVar[int]
    A_SFIXED32_FIELD_NUMBER: _ClassVar[int]
    A_SFIXED64_FIELD_NUMBER: _ClassVar[int]
    A_FLOAT_FIELD_NUMBER: _ClassVar[int]
    A_DOUBLE_FIELD_NUMBER: _ClassVar[int]
    A_STRING_FIELD_NUMBER: _ClassVar[int]
    A_BYTES_FIELD_NUMBER: _ClassVar[int]
    A_LEVEL_FIELD_NUMBER: _ClassVar[int]
    a_bool: bool
    a_int32: int
    a_int64: int
    a_uint32: int
    a_uint64: int
    a_sint32: int
    a_sint64: int
    a_fixed32: int
    a_fixed64: int
    a_sfixed32: int
    a_sfixed64: int
    a_float: float
    a_double: float
    a_string: str
    a_bytes: bytes
    a_level: Level
    def __init__(self, a_bool: _Optional[bool] = ..., a_int32: _Optional[int] = ..., a_int64: _Optional[int] = ..., a_uint32: _Optional[int] = ..., a_uint64: _Optional[int] = ..., a_sint32: _Optional[int] = ..., a_sint64: _Optional[int] = ..., a_fixed32: _Optional[int] = ..., a_fixed64: _Optional[int] = ..., a_sfixed32: _Optional[int] = ..., a_sfixed64: _Optional[int] = ..., a_float: _Optional[float] = ..., a_double: _Optional[float] = ..., a_string: _Optional[str] = ..., a_bytes: _Optional[bytes] = ..., a_level: _Optional[_Union[Level, str]] = ...) -> None: ...

class Optionals(_message.Message):
    __slots__ = ("a_bool", "a_int32", "a_int64", "a_uint32", "a_uint64", "a_sint32", "a_sint64", "a_fixed32", "a_fixed64", "a_sfixed32", "a_sfixed64", "a_float", "a_double", "a_string", "a_bytes", "a_level", "a_message")
    A_BOOL_FIELD_NUMBER: _ClassVar[int]
    A_INT32_FIELD_NUMBER: _ClassVar[int]
    A_INT64_FIELD_NUMBER: _ClassVar[int]
    A_UINT32_FIELD_NUMBER: _ClassVar[int]
    A_UINT64_FIELD_NUMBER: _ClassVar[int]
    A_SINT32_FIELD_NUMBER: _ClassVar[int]
    A_SINT64_FIELD_NUMBER: _ClassVar[int]
    A_FIXED32_FIELD_NUMBER: _ClassVar[int]
    A_FIXED64_FIELD_NUMBER: _ClassVar[int]
    A_SFIXED32_FIELD_NUMBER: _ClassVar[int]
    A_SFIXED64_FIELD_NUMBER: _ClassVar[int]
    A_FLOAT_FIELD_NUMBER: _ClassVar[int]
    A_DOUBLE_FIELD_NUMBER: _ClassVar[int]
    A_STRING_FIELD_NUMBER: _ClassVar[int]
    A_BYTES_FIELD_NUMBER: _ClassVar[int]
    A_LEVEL_FIELD_NUMBER: _ClassVar[int]
    A_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    a_bool: bool
    a_int32: int
    a_int64: int
    a_uint32: int
    a_uint64: int
    a_sint32: int
    a_sint64: int
    a_fixed32: int
    a_fixed64: int
    a_sfixed32: int
    a_sfixed64: int
    a_float: float
    a_double: float
    a_string: str
    a_bytes: bytes
    a_level: Level
    a_message: Scalars
    def __init__(self, a_bool: _Optional[bool] = ..., a_int32: _Optional[int] = ..., a_int64: _Optional[int] = ..., a_uint32: _Optional[int] = ..., a_uint64: _Optional[int] = ..., a_sint32: _Optional[int] = ..., a_sint64: _Optional[int] = ..., a_fixed32: _Optional[int] = ..., a_fixed64: _Optional[int] = ..., a_sfixed32: _Optional[int] = ..., a_sfixed64: _Optional[int] = ..., a_float: _Optional[float] = ..., a_double: _Optional[float] = ..., a_string: _Optional[str] = ..., a_bytes: _Optional[bytes] = ..., a_level: _Optional[_Union[Level, str]] = ..., a_message: _Optional[_Union[Scalars, _Mapping]] = ...) -> None: ...

class Repeateds(_message.Message):
    __slots__ = ("a_bool", "a_int32", "a_int64", "a_uint32", "a_uint64", "a_sint32", "a_sint64", "a_fixed32", "a_fixed64", "a_sfixed32", "a_sfixed64", "a_float", "a_double", "a_string", "a_bytes", "a_level", "a_message")
    A_BOOL_FIELD_NUMBER: _ClassVar[int]
    A_INT32_FIELD_NUMBER: _ClassVar[int]
    A_INT64_FIELD_NUMBER: _ClassVar[int]
    A_UINT32_FIELD_NUMBER: _ClassVar[int]
    A_UINT64_FIELD_NUMBER: _ClassVar[int]
    A_SINT32_FIELD_NUMBER: _ClassVar[int]
    A_SINT64_FIELD_NUMBER: _ClassVar[int]
    A_FIXED32_FIELD_NUMBER: _ClassVar[int]
    A_FIXED64_FIELD_NUMBER: _ClassVar[int]
    A_SFIXED32_FIELD_NUMBER: _ClassVar[int]
    A_SFIXED64_FIELD_NUMBER: _ClassVar[int]
    A_FLOAT_FIELD_NUMBER: _ClassVar[int]
    A_DOUBLE_FIELD_NUMBER: _ClassVar[int]
    A_STRING_FIELD_NUMBER: _ClassVar[int]
    A_BYTES_FIELD_NUMBER: _ClassVar[int]
    A_LEVEL_FIELD_NUMBER: _ClassVar[int]
    A_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    a_bool: _containers.RepeatedScalarFieldContainer[bool]
    a_int32: _containers.RepeatedScalarFieldContainer[int]
    a_int64: _containers.RepeatedScalarFieldContainer[int]
    a_uint32: _containers.RepeatedScalarFieldContainer[int]
    a_uint64: _containers.RepeatedScalarFieldContainer[int]
    a_sint32: _containers.RepeatedScalarFieldContainer[int]
    a_sint64: _containers.RepeatedScalarFieldContainer[int]
    a_fixed32: _containers.RepeatedScalarFieldContainer[int]
    a_fixed64: _containers.RepeatedScalarFieldContainer[int]
    a_sfixed32: _containers.RepeatedScalarFieldContainer[int]
    a_sfixed64: _containers.RepeatedScalarFieldContainer[int]
    a_float: _containers.RepeatedScalarFieldContainer[float]
    a_double: _containers.RepeatedScalarFieldContainer[float]
    a_string: _containers.RepeatedScalarFieldContainer[str]
    a_bytes: _containers.RepeatedScalarFieldContainer[bytes]
    a_level: _containers.RepeatedScalarFieldContainer[Level]
    a_message: _containers.RepeatedCompositeFieldContainer[Scalars]
    def __init__(self, a_bool: _Optional[_Iterable[bool]] = ..., a_int32: _Optional[_Iterable[int]] = ..., a_int64: _Optional[_Iterable[int]] = ..., a_uint32: _Optional[_Iterable[int]] = ..., a_uint64: _Optional[_Iterable[int]] = ..., a_sint32: _Optional[_Iterable[int]] = ..., a_sint64: _Optional[_Iterable[int]] = ..., a_fixed32: _Optional[_Iterable[int]] = ..., a_fixed64: _Optional[_Iterable[int]] = ..., a_sfixed32: _Optional[_Iterable[int]] = ..., a_sfixed64: _Optional[_Iterable[int]] = ..., a_float: _Optional[_Iterable[float]] = ..., a_double: _Optional[_Iterable[float]] = ..., a_string: _Optional[_Iterable[str]] = ..., a_bytes: _Optional[_Iterable[bytes]] = ..., a_level: _Optional[_Iterable[_Union[Level, str]]] = ..., a_message: _Optional[_Iterable[_Union[Scalars, _Mapping]]] = ...) -> None: ...

class Unpacked(_message.Message):
    __slots__ = ("a_bool", "a_int32", "a_sint64", "a_fixed32", "a_double", "a_level")
    A_BOOL_FIELD_NUMBER: _ClassVar[int]
    A_INT32_FIELD_NUMBER: _ClassVar[int]
    A_SINT64_FIELD_NUMBER: _ClassVar[int]
    A_FIXED32_FIELD_NUMBER: _ClassVar[int]
    A_DOUBLE_FIELD_NUMBER: _ClassVar[int]
    A_LEVEL_FIELD_NUMBER: _ClassVar[int]
    a_bool: _containers.RepeatedScalarFieldContainer[bool]
    a_int32: _containers.RepeatedScalarFieldContainer[int]
    a_sint64: _containers.RepeatedScalarFieldContainer[int]
    a_fixed32: _containers.RepeatedScalarFieldContainer[int]
    a_double: _containers.RepeatedScalarFieldContainer[float]
    a_level: _containers.RepeatedScalarFieldContainer[Level]
    def __init__(self, a_bool: _Optional[_Iterable[bool]] = ..., a_int32: _Optional[_Iterable[int]] = ..., a_sint64: _Optional[_Iterable[int]] = ..., a_fixed32: _Optional[_Iterable[int]] = ..., a_double: _Optional[_Iterable[float]] = ..., a_level: _Optional[_Iterable[_Union[Level, str]]] = ...) -> None: ...

class MapKeys(_message.Message):
    __slots__ = ("a_bool", "a_int32", "a_int64", "a_uint32", "a_uint64", "a_sint32", "a_sint64", "a_fixed32", "a_fixed64", "a_sfixed32", "a_sfixed64", "a_string")
    class ABoolEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: bool
        value: int
        def __init__(self, key: _Optional[bool] = ..., value: _Optional[int] = ...) -> None: ...
    class AInt32Entry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: int
        def __init__(self, key: _Optional[int] = ..., value: _Optional[int] = ...) -> None: ...
    class AInt64Entry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: int
        def __init__(self, key: _Optional[int] = ..., value: _Optional[int] = ...) -> None: ...
    class AUint32Entry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: int
        def __init__(self, key: _Optional[int] = ..., value: _Optional[int] = ...) -> None: ...
    class AUint64Entry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: int
        def __init__(self, key: _Optional[int] = ..., value: _Optional[int] = ...) -> None: ...
    class ASint32Entry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: int
        def __init__(self, key: _Optional[int] = ..., value: _Optional[int] = ...) -> None: ...
    class ASint64Entry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: int
        def __init__(self, key: _Optional[int] = ..., value: _Optional[int] = ...) -> None: ...
    class AFixed32Entry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: int
        def __init__(self, key: _Optional[int] = ..., value: _Optional[int] = ...) -> None: ...
    class AFixed64Entry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: int
        def __init__(self, key: _Optional[int] = ..., value: _Optional[int] = ...) -> None: ...
    class ASfixed32Entry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: int
        def __init__(self, key: _Optional[int] = ..., value: _Optional[int] = ...) -> None: ...
    class ASfixed64Entry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: int
        def __init__(self, key: _Optional[int] = ..., value: _Optional[int] = ...) -> None: ...
    class AStringEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    A_BOOL_FIELD_NUMBER: _ClassVar[int]
    A_INT32_FIELD_NUMBER: _ClassVar[int]
    A_INT64_FIELD_NUMBER: _ClassVar[int]
    A_UINT32_FIELD_NUMBER: _ClassVar[int]
    A_UINT64_FIELD_NUMBER: _ClassVar[int]
    A_SINT32_FIELD_NUMBER: _ClassVar[int]
    A_SINT64_FIELD_NUMBER: _ClassVar[int]
    A_FIXED32_FIELD_NUMBER: _ClassVar[int]
    A_FIXED64_FIELD_NUMBER: _ClassVar[int]
    A_SFIXED32_FIELD_NUMBER: _ClassVar[int]
    A_SFIXED64_FIELD_NUMBER: _ClassVar[int]
    A_STRING_FIELD_NUMBER: _ClassVar[int]
    a_bool: _containers.ScalarMap[bool, int]
    a_int32: _containers.ScalarMap[int, int]
    a_int64: _containers.ScalarMap[int, int]
    a_uint32: _containers.ScalarMap[int, int]
    a_uint64: _containers.ScalarMap[int, int]
    a_sint32: _containers.ScalarMap[int, int]
    a_sint64: _containers.ScalarMap[int, int]
    a_fixed32: _containers.ScalarMap[int, int]
    a_fixed64: _containers.ScalarMap[int, int]
    a_sfixed32: _containers.ScalarMap[int, int]
    a_sfixed64: _containers.ScalarMap[int, int]
    a_string: _containers.ScalarMap[str, int]
    def __init__(self, a_bool: _Optional[_Mapping[bool, int]] = ..., a_int32: _Optional[_Mapping[int, int]] = ..., a_int64: _Optional[_Mapping[int, int]] = ..., a_uint32: _Optional[_Mapping[int, int]] = ..., a_uint64: _Optional[_Mapping[int, int]] = ..., a_sint32: _Optional[_Mapping[int, int]] = ..., a_sint64: _Optional[_Mapping[int, int]] = ..., a_fixed32: _Optional[_Mapping[int, int]] = ..., a_fixed64: _Optional[_Mapping[int, int]] = ..., a_sfixed32: _Optional[_Mapping[int, int]] = ..., a_sfixed64: _Optional[_Mapping[int, int]] = ..., a_string: _Optional[_Mapping[str, int]] = ...) -> None: ...

class MapValues(_message.Message):
    __slots__ = ("a_bool", "a_int32", "a_int64", "a_uint32", "a_uint64", "a_sint32", "a_sint64", "a_fixed32", "a_fixed64", "a_sfixed32", "a_sfixed64", "a_float", "a_double", "a_string", "a_bytes", "a_level", "a_message", "a_timestamp", "a_duration", "a_wrapper")
    class ABoolEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: bool
        def __init__(self, key: _Optional[str] = ..., value: _Optional[bool] = ...) -> None: ...
    class AInt32Entry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class AInt64Entry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class AUint32Entry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class AUint64Entry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class ASint32Entry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class ASint64Entry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class AFixed32Entry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class AFixed64Entry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class ASfixed32Entry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class ASfixed64Entry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class AFloatEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    class ADoubleEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    class AStringEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class ABytesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: bytes
        def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...
    class ALevelEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Level
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Level, str]] = ...) -> None: ...
    class AMessageEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Scalars
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Scalars, _Mapping]] = ...) -> None: ...
    class ATimestampEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _timestamp_pb2.Timestamp
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...
    class ADurationEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _duration_pb2.Duration
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...
    class AWrapperEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _wrappers_pb2.Int64Value
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_wrappers_pb2.Int64Value, _Mapping]] = ...) -> None: ...
    A_BOOL_FIELD_NUMBER: _ClassVar[int]
    A_INT32_FIELD_NUMBER: _ClassVar[int]
    A_INT64_FIELD_NUMBER: _ClassVar[int]
    A_UINT32_FIELD_NUMBER: _ClassVar[int]
    A_UINT64_FIELD_NUMBER: _ClassVar[int]
    A_SINT32_FIELD_NUMBER: _ClassVar[int]
    A_SINT64_FIELD_NUMBER: _ClassVar[int]
    A_FIXED32_FIELD_NUMBER: _ClassVar[int]
    A_FIXED64_FIELD_NUMBER: _ClassVar[int]
    A_SFIXED32_FIELD_NUMBER: _ClassVar[int]
    A_SFIXED64_FIELD_NUMBER: _ClassVar[int]
    A_FLOAT_FIELD_NUMBER: _ClassVar[int]
    A_DOUBLE_FIELD_NUMBER: _ClassVar[int]
    A_STRING_FIELD_NUMBER: _ClassVar[int]
    A_BYTES_FIELD_NUMBER: _ClassVar[int]
    A_LEVEL_FIELD_NUMBER: _ClassVar[int]
    A_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    A_TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    A_DURATION_FIELD_NUMBER: _ClassVar[int]
    A_WRAPPER_FIELD_NUMBER: _ClassVar[int]
    a_bool: _containers.ScalarMap[str, bool]
    a_int32: _containers.ScalarMap[str, int]
    a_int64: _containers.ScalarMap[str, int]
    a_uint32: _containers.ScalarMap[str, int]
    a_uint64: _containers.ScalarMap[str, int]
    a_sint32: _containers.ScalarMap[str, int]
    a_sint64: _containers.ScalarMap[str, int]
    a_fixed32: _containers.ScalarMap[str, int]
    a_fixed64: _containers.ScalarMap[str, int]
    a_sfixed32: _containers.ScalarMap[str, int]
    a_sfixed64: _containers.ScalarMap[str, int]
    a_float: _containers.ScalarMap[str, float]
    a_double: _containers.ScalarMap[str, float]
    a_string: _containers.ScalarMap[str, str]
    a_bytes: _containers.ScalarMap[str, bytes]
    a_level: _containers.ScalarMap[str, Level]
    a_message: _containers.MessageMap[str, Scalars]
    a_timestamp: _containers.MessageMap[str, _timestamp_pb2.Timestamp]
    a_duration: _containers.MessageMap[str, _duration_pb2.Duration]
    a_wrapper: _containers.MessageMap[str, _wrappers_pb2.Int64Value]
    def __init__(self, a_bool: _Optional[_Mapping[str, bool]] = ..., a_int32: _Optional[_Mapping[str, int]] = ..., a_int64: _Optional[_Mapping[str, int]] = ..., a_uint32: _Optional[_Mapping[str, int]] = ..., a_uint64: _Optional[_Mapping[str, int]] = ..., a_sint32: _Optional[_Mapping[str, int]] = ..., a_sint64: _Optional[_Mapping[str, int]] = ..., a_fixed32: _Optional[_Mapping[str, int]] = ..., a_fixed64: _Optional[_Mapping[str, int]] = ..., a_sfixed32: _Optional[_Mapping[str, int]] = ..., a_sfixed64: _Optional[_Mapping[str, int]] = ..., a_float: _Optional[_Mapping[str, float]] = ..., a_double: _Optional[_Mapping[str, float]] = ..., a_string: _Optional[_Mapping[str, str]] = ..., a_bytes: _Optional[_Mapping[str, bytes]] = ..., a_level: _Optional[_Mapping[str, Level]] = ..., a_message: _Optional[_Mapping[str, Scalars]] = ..., a_timestamp: _Optional[_Mapping[str, _timestamp_pb2.Timestamp]] = ..., a_duration: _Optional[_Mapping[str, _duration_pb2.Duration]] = ..., a_wrapper: _Optional[_Mapping[str, _wrappers_pb2.Int64Value]] = ...) -> None: ...

class Oneofs(_message.Message):
    __slots__ = ("a_bool", "a_int32", "a_sint64", "a_fixed32", "a_double", "a_string", "a_bytes", "a_level", "a_message", "a_timestamp", "a_wrapper", "between", "b_uint64", "b_float")
    A_BOOL_FIELD_NUMBER: _ClassVar[int]
    A_INT32_FIELD_NUMBER: _ClassVar[int]
    A_SINT64_FIELD_NUMBER: _ClassVar[int]
    A_FIXED32_FIELD_NUMBER: _ClassVar[int]
    A_DOUBLE_FIELD_NUMBER: _ClassVar[int]
    A_STRING_FIELD_NUMBER: _ClassVar[int]
    A_BYTES_FIELD_NUMBER: _ClassVar[int]
    A_LEVEL_FIELD_NUMBER: _ClassVar[int]
    A_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    A_TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    A_WRAPPER_FIELD_NUMBER: _ClassVar[int]
    BETWEEN_FIELD_NUMBER: _ClassVar[int]
    B_UINT64_FIELD_NUMBER: _ClassVar[int]
    B_FLOAT_FIELD_NUMBER: _ClassVar[int]
    a_bool: bool
    a_int32: int
    a_sint64: int
    a_fixed32: int
    a_double: float
    a_string: str
    a_bytes: bytes
    a_level: Level
    a_message: Scalars
    a_timestamp: _timestamp_pb2.Timestamp
    a_wrapper: _wrappers_pb2.StringValue
    between: str
    b_uint64: int
    b_float: float
    def __init__(self, a_bool: _Optional[bool] = ..., a_int32: _Optional[int] = ..., a_sint64: _Optional[int] = ..., a_fixed32: _Optional[int] = ..., a_double: _Optional[float] = ..., a_string: _Optional[str] = ..., a_bytes: _Optional[bytes] = ..., a_level: _Optional[_Union[Level, str]] = ..., a_message: _Optional[_Union[Scalars, _Mapping]] = ..., a_timestamp: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., a_wrapper: _Optional[_Union[_wrappers_pb2.StringValue, _Mapping]] = ..., between: _Optional[str] = ..., b_uint64: _Optional[int] = ..., b_float: _Optional[float] = ...) -> None: ...

class WellKnown(_message.Message):
    __slots__ = ("timestamp", "duration", "bool_value", "int32_value", "int64_value", "uint32_value", "uint64_value", "float_value", "double_value", "string_value", "bytes_value", "timestamps", "durations", "strings", "any", "empty", "field_mask", "struct", "value", "list_value", "null_value")
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    DURATION_FIELD_NUMBER: _ClassVar[int]
    BOOL_VALUE_FIELD_NUMBER: _ClassVar[int]
    INT32_VALUE_FIELD_NUMBER: _ClassVar[int]
    INT64_VALUE_FIELD_NUMBER: _ClassVar[int]
    UINT32_VALUE_FIELD_NUMBER: _ClassVar[int]
    UINT64_VALUE_FIELD_NUMBER: _ClassVar[int]
    FLOAT_VALUE_FIELD_NUMBER: _ClassVar[int]
    DOUBLE_VALUE_FIELD_NUMBER: _ClassVar[int]
    STRING_VALUE_FIELD_NUMBER: _ClassVar[int]
    BYTES_VALUE_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMPS_FIELD_NUMBER: _ClassVar[int]
    DURATIONS_FIELD_NUMBER: _ClassVar[int]
    STRINGS_FIELD_NUMBER: _ClassVar[int]
    ANY_FIELD_NUMBER: _ClassVar[int]
    EMPTY_FIELD_NUMBER: _ClassVar[int]
    FIELD_MASK_FIELD_NUMBER: _ClassVar[int]
    STRUCT_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    LIST_VALUE_FIELD_NUMBER: _ClassVar[int]
    NULL_VALUE_FIELD_NUMBER: _ClassVar[int]
    timestamp: _timestamp_pb2.Timestamp
    duration: _duration_pb2.Duration
    bool_value: _wrappers_pb2.BoolValue
    int32_value: _wrappers_pb2.Int32Value
    int64_value: _wrappers_pb2.Int64Value
    uint32_value: _wrappers_pb2.UInt32Value
    uint64_value: _wrappers_pb2.UInt64Value
    float_value: _wrappers_pb2.FloatValue
    double_value: _wrappers_pb2.DoubleValue
    string_value: _wrappers_pb2.StringValue
    bytes_value: _wrappers_pb2.BytesValue
    timestamps: _containers.RepeatedCompositeFieldContainer[_timestamp_pb2.Timestamp]
    durations: _containers.RepeatedCompositeFieldContainer[_duration_pb2.Duration]
    strings: _containers.RepeatedCompositeFieldContainer[_wrappers_pb2.StringValue]
    any: _any_pb2.Any
    empty: _empty_pb2.Empty
    field_mask: _field_mask_pb2.FieldMask
    struct: _struct_pb2.Struct
    value: _struct_pb2.Value
    list_value: _struct_pb2.ListValue
    null_value: _struct_pb2.NullValue
    def __init__(self, timestamp: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., bool_value: _Optional[_Union[_wrappers_pb2.BoolValue, _Mapping]] = ..., int32_value: _Optional[_Union[_wrappers_pb2.Int32Value, _Mapping]] = ..., int64_value: _Optional[_Union[_wrappers_pb2.Int64Value, _Mapping]] = ..., uint32_value: _Optional[_Union[_wrappers_pb2.UInt32Value, _Mapping]] = ..., uint64_value: _Optional[_Union[_wrappers_pb2.UInt64Value, _Mapping]] = ..., float_value: _Optional[_Union[_wrappers_pb2.FloatValue, _Mapping]] = ..., double_value: _Optional[_Union[_wrappers_pb2.DoubleValue, _Mapping]] = ..., string_value: _Optional[_Union[_wrappers_pb2.StringValue, _Mapping]] = ..., bytes_value: _Optional[_Union[_wrappers_pb2.BytesValue, _Mapping]] = ..., timestamps: _Optional[_Iterable[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]]] = ..., durations: _Optional[_Iterable[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]]] = ..., strings: _Optional[_Iterable[_Union[_wrappers_pb2.StringValue, _Mapping]]] = ..., any: _Optional[_Union[_any_pb2.Any, _Mapping]] = ..., empty: _Optional[_Union[_empty_pb2.Empty, _Mapping]] = ..., field_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ..., struct: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., value: _Optional[_Union[_struct_pb2.Value, _Mapping]] = ..., list_value: _Optional[_Union[_struct_pb2.ListValue, _Mapping]] = ..., null_value: _Optional[_Union[_struct_pb2.NullValue, str]] = ...) -> None: ...

class Tree(_message.Message):
    __slots__ = ("name", "child", "children", "named", "forest")
    class NamedEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Tree
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Tree, _Mapping]] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    CHILD_FIELD_NUMBER: _ClassVar[int]
    CHILDREN_FIELD_NUMBER: _ClassVar[int]
    NAMED_FIELD_NUMBER: _ClassVar[int]
    FOREST_FIELD_NUMBER: _ClassVar[int]
    name: str
    child: Tree
    children: _containers.RepeatedCompositeFieldContainer[Tree]
    named: _containers.MessageMap[str, Tree]
    forest: Forest
    def __init__(self, name: _Optional[str] = ..., child: _Optional[_Union[Tree, _Mapping]] = ..., children: _Optional[_Iterable[_Union[Tree, _Mapping]]] = ..., named: _Optional[_Mapping[str, Tree]] = ..., forest: _Optional[_Union[Forest, _Mapping]] = ...) -> None: ...

class Forest(_message.Message):
    __slots__ = ("trees",)
    TREES_FIELD_NUMBER: _ClassVar[int]
    trees: _containers.RepeatedCompositeFieldContainer[Tree]
    def __init__(self, trees: _Optional[_Iterable[_Union[Tree, _Mapping]]] = ...) -> None: ...

class Numbers(_message.Message):
    __slots__ = ("last", "two_bytes", "first", "three_bytes", "one_byte", "four_bytes", "table_end", "beyond_table")
    LAST_FIELD_NUMBER: _ClassVar[int]
    TWO_BYTES_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    THREE_BYTES_FIELD_NUMBER: _ClassVar[int]
    ONE_BYTE_FIELD_NUMBER: _ClassVar[int]
    FOUR_BYTES_FIELD_NUMBER: _ClassVar[int]
    TABLE_END_FIELD_NUMBER: _ClassVar[int]
    BEYOND_TABLE_FIELD_NUMBER: _ClassVar[int]
    last: str
    two_bytes: str
    first: str
    three_bytes: _containers.RepeatedScalarFieldContainer[int]
    one_byte: str
    four_bytes: Scalars
    table_end: str
    beyond_table: str
    def __init__(self, last: _Optional[str] = ..., two_bytes: _Optional[str] = ..., first: _Optional[str] = ..., three_bytes: _Optional[_Iterable[int]] = ..., one_byte: _Optional[str] = ..., four_bytes: _Optional[_Union[Scalars, _Mapping]] = ..., table_end: _Optional[str] = ..., beyond_table: _Optional[str] = ...) -> None: ...

class Names(_message.Message):
    __slots__ = ("int", "bytes", "self", "_lead", "camelCase")
    CLASS_FIELD_NUMBER: _ClassVar[int]
    INT_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    SELF_FIELD_NUMBER: _ClassVar[int]
    _LEAD_FIELD_NUMBER: _ClassVar[int]
    CAMELCASE_FIELD_NUMBER: _ClassVar[int]
    int: int
    bytes: bytes
    self: str
    _lead: str
    camelCase: str
    def __init__(self_, int: _Optional[int] = ..., bytes: _Optional[bytes] = ..., self: _Optional[str] = ..., _lead: _Optional[str] = ..., camelCase: _Optional[str] = ..., **kwargs) -> None: ...

class Old(_message.Message):
    __slots__ = ("name", "items", "counts", "gone")
    class CountsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    GONE_FIELD_NUMBER: _ClassVar[int]
    name: str
    items: _containers.RepeatedScalarFieldContainer[str]
    counts: _containers.ScalarMap[str, int]
    gone: str
    def __init__(self, name: _Optional[str] = ..., items: _Optional[_Iterable[str]] = ..., counts: _Optional[_Mapping[str, int]] = ..., gone: _Optional[str] = ...) -> None: ...

class Nothing(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Partial(_message.Message):
    __slots__ = ("a_int32", "a_string")
    A_INT32_FIELD_NUMBER: _ClassVar[int]
    A_STRING_FIELD_NUMBER: _ClassVar[int]
    a_int32: int
    a_string: str
    def __init__(self, a_int32: _Optional[int] = ..., a_string: _Optional[str] = ...) -> None: ...

class Small(_message.Message):
    __slots__ = ("id", "name", "active")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_FIELD_NUMBER: _ClassVar[int]
    id: int
    name: str
    active: bool
    def __init__(self, id: _Optional[int] = ..., name: _Optional[str] = ..., active: _Optional[bool] = ...) -> None: ...

class User(_message.Message):
    __slots__ = ("id", "name", "email", "active", "age", "roles", "address")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    EMAIL_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_FIELD_NUMBER: _ClassVar[int]
    AGE_FIELD_NUMBER: _ClassVar[int]
    ROLES_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    id: int
    name: str
    email: str
    active: bool
    age: int
    roles: _containers.RepeatedScalarFieldContainer[str]
    address: Address
    def __init__(self, id: _Optional[int] = ..., name: _Optional[str] = ..., email: _Optional[str] = ..., active: _Optional[bool] = ..., age: _Optional[int] = ..., roles: _Optional[_Iterable[str]] = ..., address: _Optional[_Union[Address, _Mapping]] = ...) -> None: ...

class Address(_message.Message):
    __slots__ = ("street", "city", "postal_code")
    STREET_FIELD_NUMBER: _ClassVar[int]
    CITY_FIELD_NUMBER: _ClassVar[int]
    POSTAL_CODE_FIELD_NUMBER: _ClassVar[int]
    street: str
    city: str
    postal_code: str
    def __init__(self, street: _Optional[str] = ..., city: _Optional[str] = ..., postal_code: _Optional[str] = ...) -> None: ...

class UserList(_message.Message):
    __slots__ = ("users", "next_page_token")
    USERS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    users: _containers.RepeatedCompositeFieldContainer[User]
    next_page_token: str
    def __init__(self, users: _Optional[_Iterable[_Union[User, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...
