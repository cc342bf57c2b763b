"""Types of the Rust core. stubtest holds this file to the compiled module."""

from collections.abc import Sequence
from typing import Final, final

__all__: list[str]

# --- codec ---------------------------------------------------------------

# --- policy --------------------------------------------------------------

# --- transcode -----------------------------------------------------------

@final
class RouteTable:
    def __new__(cls) -> RouteTable: ...
    def add(self, method: str, template: str, owner: str) -> tuple[str, ...]: ...
    def match(self, method: str, target: str) -> tuple[int, tuple[str, ...], str]: ...

@final
class Transcoder:
    def __new__(
        cls,
        descriptor_set: bytes,
        services: list[str] | None,
        max_depth: int,
        print_defaults: bool,
    ) -> Transcoder: ...
    def bindings(
        self,
    ) -> list[tuple[str, str, str, str, str, tuple[str, ...], str, str, str, str, bool, bool]]: ...
    def match(self, method: str, target: str) -> tuple[int, tuple[str, ...], str]: ...
    def request(
        self, binding: int, values: Sequence[str], query: str, body: bytes
    ) -> bytes: ...
    def begin(self, method: str, target: str, body: bytes) -> tuple[int, str, bytes]: ...
    def response(self, binding: int, message: bytes) -> bytes: ...
    def from_json(self, message_type: str, document: bytes) -> bytes: ...
    def to_json(self, message_type: str, message: bytes) -> bytes: ...

# --- wire ----------------------------------------------------------------
