"""Message classes of the services that bascule brings along, apart from everybody else's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

if TYPE_CHECKING:
    from google.protobuf.descriptor import FileDescriptor
    from google.protobuf.message import Message

# grpcio's and grpclib's packages declare the same messages in files with other names, which a pool refuses to hold
# together. A pool of our own lets all of them live in one process.
_pool = DescriptorPool()


def own_messages(serialized: bytes) -> tuple[FileDescriptor, dict[str, type[Message]]]:
    """Return the file and its message classes by name.

    :param serialized: a FileDescriptorProto that imports nothing
    """
    file: FileDescriptor = _pool.AddSerializedFile(serialized)
    return file, {
        name: GetMessageClass(message) for name, message in file.message_types_by_name.items()
    }
