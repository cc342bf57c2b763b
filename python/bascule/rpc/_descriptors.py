"""Descriptors of protobuf files: of any, and of those that bascule brings along."""

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


def descriptor_set(*files: FileDescriptor) -> bytes:
    """Serialize files and everything that they import as a ``FileDescriptorSet``.

    :param files: ``DESCRIPTOR`` of generated protobuf modules
    """
    from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

    ordered: dict[str, FileDescriptor] = {}

    def add(file: FileDescriptor) -> None:
        if file.name not in ordered:
            for dependency in file.dependencies:
                add(dependency)
            ordered[file.name] = file

    for file in files:
        add(file)
    protos = [FileDescriptorProto.FromString(file.serialized_pb) for file in ordered.values()]
    return FileDescriptorSet(file=protos).SerializeToString()
