"""What the user service does."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import msgspec
from argon2 import PasswordHasher

from bascule.errors import Status
from bascule.events import Topic
from bascule_shop._checks import Checks, Page, new_id, now
from bascule_shop._faults import fault, not_found
from bascule_shop._generated.user import (
    CreateUserRequest,
    GetUserRequest,
    ListUsersRequest,
    ListUsersResponse,
    User,
)
from bascule_shop._generated.user.services import UserServiceBase
from bascule_shop.user._store import EmailTakenError

if TYPE_CHECKING:
    from collections.abc import Callable

    from bascule_shop.user._store import UserStore

__all__ = ["USER_CREATED", "UserCreated", "UserService"]

_EMAIL = re.compile(r"[^@\s]+@[^@\s.]+(\.[^@\s.]+)+")
# One hash takes 64 MiB and several threads for a few dozen milliseconds.
_HASHES_AT_ONCE = 2


class UserCreated(msgspec.Struct, frozen=True):
    """A user was created. Whoever needs to know more asks the service."""

    user_id: str


USER_CREATED = Topic("user.created", UserCreated)


class UserService(UserServiceBase):
    """``user.UserService``.

    :param store: of the users
    :param notify: called after an event was stored
    :param hasher: argon2id with its parameters
    """

    def __init__(
        self,
        store: UserStore,
        *,
        notify: Callable[[], None] = lambda: None,
        hasher: PasswordHasher | None = None,
    ) -> None:
        self._store = store
        self._notify = notify
        self._hasher = hasher or PasswordHasher()
        self._hashing = anyio.CapacityLimiter(_HASHES_AT_ONCE)

    async def get_user(self, request: GetUserRequest) -> User:
        """Give one user."""
        user = await self._store.get(request.id)
        if user is None:
            raise not_found("user", request.id)
        return user

    async def create_user(self, request: CreateUserRequest) -> User:
        """Add a user."""
        user = _checked(request)
        password_hash = await anyio.to_thread.run_sync(
            self._hasher.hash, request.password, limiter=self._hashing
        )
        event = USER_CREATED.event(user.id, UserCreated(user.id))
        try:
            await self._store.add(user, password_hash, event)
        except EmailTakenError as error:
            raise fault(
                Status.ALREADY_EXISTS,
                "EMAIL_TAKEN",
                f"a user with the e-mail address {user.email} exists",
            ) from error
        self._notify()
        return user

    async def list_users(self, request: ListUsersRequest) -> ListUsersResponse:
        """Give a page of users."""
        page = Page(request.page_size, request.page_token)
        users = await self._store.list(page.after, page.size + 1)
        return ListUsersResponse(
            users=list(users[: page.size]), next_page_token=page.token([user.id for user in users])
        )


def _checked(request: CreateUserRequest) -> User:
    email = request.email.strip().lower()
    name = request.display_name.strip()
    checks = Checks()
    checks.text(email, "email", longest=254)
    checks.require(_EMAIL.fullmatch(email), "email", "must look like name@example.com")
    checks.text(name, "display_name", longest=100)
    checks.require(10 <= len(request.password) <= 128, "password", "must have 10 to 128 characters")
    checks.finish()
    return User(id=new_id("usr"), email=email, display_name=name, create_time=now())
