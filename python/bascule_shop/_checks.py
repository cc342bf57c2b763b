"""Checks of requests that all services share."""

from __future__ import annotations

import base64
import binascii
import secrets
import time
from datetime import UTC, datetime

from bascule_shop._faults import invalid

__all__ = ["Checks", "Page", "new_id", "now"]

_DEFAULT_PAGE = 20
_LARGEST_PAGE = 100


class Checks:
    """Collects what is wrong with a request, to report it all at once."""

    def __init__(self) -> None:
        self._violations: dict[str, str] = {}

    def require(self, condition: object, field: str, description: str) -> None:
        """Note a violation of a field unless the condition holds. The first one of a field counts.

        :param description: continues the field's name, such as "must not be empty"
        """
        if not condition:
            self._violations.setdefault(field, description)

    def text(self, value: str, field: str, *, longest: int, shortest: int = 1) -> None:
        """Require a printable text of so many characters."""
        self.require(
            shortest <= len(value) <= longest,
            field,
            f"must have {shortest} to {longest} characters, not {len(value)}",
        )
        self.require(value.isprintable(), field, "must not contain control characters")

    def finish(self) -> None:
        """End the checks.

        :raises RpcError: INVALID_ARGUMENT with every violation, if there is one
        """
        if self._violations:
            raise invalid(self._violations)


class Page:
    """A page of a list ordered by id.

    :ivar size: items to give at most
    :ivar after: id of the last item before the page; None for the first page
    :raises RpcError: INVALID_ARGUMENT if the size is negative or the token was not given out here
    """

    def __init__(self, size: int, token: str) -> None:
        checks = Checks()
        checks.require(size >= 0, "page_size", f"must not be negative: {size}")
        self.size = min(size or _DEFAULT_PAGE, _LARGEST_PAGE)
        self.after: str | None = None
        if token:
            try:
                self.after = base64.b64decode(token, altchars=b"-_", validate=True).decode()
            except (binascii.Error, ValueError):
                checks.require(None, "page_token", "must be a next_page_token of the list")
        checks.finish()

    def token(self, ids: list[str]) -> str:
        """Give the next page's token for the ids found with a limit of ``size + 1``."""
        if len(ids) <= self.size:
            return ""
        return base64.urlsafe_b64encode(ids[self.size - 1].encode()).decode()


def new_id(prefix: str) -> str:
    """Make a unique id; ids sort by the millisecond in which they were made."""
    return f"{prefix}_{time.time_ns() // 1_000_000:012x}{secrets.token_hex(8)}"


def now() -> datetime:
    """Give the time to store: what databases keep is exact to the microsecond."""
    return datetime.now(UTC)
