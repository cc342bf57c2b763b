"""What the shop's protos say, in one file."""

from __future__ import annotations

from importlib.resources import files

__all__ = ["descriptor_set"]


def descriptor_set() -> bytes:
    """Give the services' ``FileDescriptorSet``, with their routes."""
    return (files("bascule_shop._generated") / "descriptors.binpb").read_bytes()
