"""Helpers for the tests of programs that use bascule."""

from bascule.testing._memory import memory_channel as memory_channel
