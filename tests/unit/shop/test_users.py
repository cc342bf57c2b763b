"""The user service."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest
import sqlalchemy as sa
from tests.unit.shop.conftest import FAST_HASHER, JoinedShop

from bascule.errors import RpcError, Status
from bascule.sql import Database
from bascule_shop._generated.user import CreateUserRequest, GetUserRequest, ListUsersRequest
from bascule_shop.user import UserCreated
from bascule_shop.user import _store as user_tables

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio


def request(**changes: str) -> CreateUserRequest:
    fields = {"email": "New@Example.com", "display_name": "New", "password": "long enough"}
    return CreateUserRequest(**(fields | changes))


async def test_a_created_user_can_be_read_and_its_event_carries_its_id_only(
    shop: JoinedShop,
) -> None:
    user = await shop.users.create_user(request())
    assert user.email == "new@example.com"
    assert await shop.users.get_user(GetUserRequest(id=user.id)) == user
    ((_, event),) = await shop.user_outbox.pending(10)
    assert (event.topic.name, event.payload) == ("user.created", UserCreated(user_id=user.id))
    assert shop.notified == 1


async def test_the_password_is_kept_as_an_argon2id_hash(shop: JoinedShop, tmp_path: Path) -> None:
    user = await shop.users.create_user(request(password="correct horse"))
    async with Database(f"sqlite:///{tmp_path / 'user.db'}") as database:
        table = user_tables.METADATA.tables["users"]
        query = sa.select(table.c.password_hash).where(table.c.id == user.id)
        stored = await database.read(lambda connection: connection.scalar(query))
    assert stored is not None
    assert stored.startswith("$argon2id$")
    assert FAST_HASHER.verify(stored, "correct horse")


async def test_an_address_belongs_to_one_user_whatever_its_case(shop: JoinedShop) -> None:
    results: list[str | None] = []

    async def create(email: str) -> None:
        try:
            await shop.users.create_user(request(email=email))
        except RpcError as error:
            results.append(error.details[0].reason)
        else:
            results.append(None)

    async with anyio.create_task_group() as tasks:
        for email in ("one@example.com", "ONE@example.com", " One@Example.com ", "two@example.com"):
            tasks.start_soon(create, email)
    assert results.count(None) == 2
    assert results.count("EMAIL_TAKEN") == 2
    assert len(await shop.user_outbox.pending(10)) == 2


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"email": ""}, "email"),
        ({"email": "nobody"}, "email"),
        ({"email": "a@b"}, "email"),
        ({"email": "a b@example.com"}, "email"),
        ({"email": "a@example.com\n.evil"}, "email"),
        ({"email": "a" * 250 + "@example.com"}, "email"),
        ({"display_name": "  "}, "display_name"),
        ({"display_name": "x" * 101}, "display_name"),
        ({"display_name": "bell\x07"}, "display_name"),
        ({"password": "short"}, "password"),
        ({"password": "x" * 129}, "password"),
    ],
)
async def test_a_bad_field_is_named(shop: JoinedShop, changes: dict[str, str], field: str) -> None:
    with pytest.raises(RpcError) as caught:
        await shop.users.create_user(request(**changes))
    assert caught.value.status is Status.INVALID_ARGUMENT
    (bad,) = caught.value.details
    assert [violation.field for violation in bad.field_violations] == [field]


async def test_all_bad_fields_are_named_at_once(shop: JoinedShop) -> None:
    with pytest.raises(RpcError) as caught:
        await shop.users.create_user(CreateUserRequest())
    (bad,) = caught.value.details
    assert [v.field for v in bad.field_violations] == ["email", "display_name", "password"]


async def test_an_unknown_user_is_not_found(shop: JoinedShop) -> None:
    with pytest.raises(RpcError, match="usr_nobody") as caught:
        await shop.users.get_user(GetUserRequest(id="usr_nobody"))
    assert caught.value.status is Status.NOT_FOUND


async def test_pages_hold_every_user_once(shop: JoinedShop) -> None:
    seen: list[str] = []
    token = ""
    for expected in (2, 2, 1):
        reply = await shop.users.list_users(ListUsersRequest(page_size=2, page_token=token))
        assert len(reply.users) == expected
        seen += [user.id for user in reply.users]
        token = reply.next_page_token
    assert token == ""
    assert seen == sorted(set(seen))
    assert len(seen) == 5


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        (ListUsersRequest(page_size=-1), "page_size"),
        (ListUsersRequest(page_token="%%%"), "page_token"),
        (ListUsersRequest(page_token="_w=="), "page_token"),
    ],
)
async def test_a_bad_page_is_refused(shop: JoinedShop, bad: ListUsersRequest, field: str) -> None:
    with pytest.raises(RpcError, match=field) as caught:
        await shop.users.list_users(bad)
    assert caught.value.status is Status.INVALID_ARGUMENT
