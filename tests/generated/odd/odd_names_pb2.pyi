from google.protobuf import empty_pb2 as _empty_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from tests.generated.odd import rootless_pb2 as _rootless_pb2
from tests.generated.odd import shared_pb2 as _shared_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar

DESCRIPTOR: _descriptor.FileDescriptor

class Method(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Status(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class NamesStub(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Outer(_message.Message):
    __slots__ = ()
    class Inner(_message.Message):
        __slots__ = ()
        class HTTPInnermost(_message.Message):
            __slots__ = ()
            def __init__(self) -> None: ...
        def __init__(self) -> None: ...
    def __init__(self) -> None: ...

class AnUncommonlyLongNameForTheRequestOfAMethod(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class AnUncommonlyLongNameForTheReplyOfAMethod(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class AnUncommonlyLongNameForAReplyEvenLongerThanThose(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
