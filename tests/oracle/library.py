"""The schema of ``tests/protos/transcode.proto``, compiled when it is first asked for."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from google.protobuf import json_format
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

if TYPE_CHECKING:
    from google.protobuf.message import Message

ROOT = Path(__file__).parents[2]


@cache
def descriptor_set() -> bytes:
    """The set as ``protoc`` writes it."""
    includes = [f"-I{ROOT / 'tests' / 'protos'}", f"-I{ROOT / 'protos'}"]
    with tempfile.NamedTemporaryFile() as output:
        target = f"--descriptor_set_out={output.name}"
        compiler = [sys.executable, "-m", "grpc_tools.protoc", *includes, "--include_imports"]
        subprocess.run([*compiler, target, "transcode.proto"], check=True)
        return Path(output.name).read_bytes()


@cache
def pool() -> DescriptorPool:
    """A pool of its own, so that the test's types never meet other tests'."""
    result = DescriptorPool()
    for file in FileDescriptorSet.FromString(descriptor_set()).file:
        result.Add(file)
    return result


@cache
def message_class(full_name: str) -> type[Message]:
    return GetMessageClass(pool().FindMessageTypeByName(full_name))


def read(full_name: str, wire: bytes) -> Message:
    """What ``protobuf`` reads in bytes."""
    return message_class(full_name).FromString(wire)


def parse(full_name: str, document: str | bytes) -> Message:
    """What ``json_format`` reads in a document."""
    return json_format.Parse(document, message_class(full_name)(), descriptor_pool=pool())
