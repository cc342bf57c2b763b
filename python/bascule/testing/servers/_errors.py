"""What may go wrong before a server answers."""

from __future__ import annotations

from bascule.errors import BasculeError

__all__ = ["MissingProgramError", "StartError"]


class MissingProgramError(BasculeError):
    """A server's program is not to be found; the message says which, and how to get it."""


class StartError(BasculeError):
    """A server ended, or did not answer in time, when it was started; the message has its last words."""
