"""Reservations on servers of MongoDB's protocol: each process may end, or fall asleep, at every command."""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING, Any

import pymongo
import pytest

from bascule_shop.product._mongo import Moves
from bascule_shop.product._store import OutOfStockError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bascule.testing.servers import MongoServer

INITIAL = {"p1": 10, "p2": 5, "p3": 1}
COMMANDS = {"find", "find_one", "insert_one", "update_one", "delete_one"}
SEEDS = 150


class CrashedError(BaseException):
    """The process is gone."""


class Gated:
    """Collections whose every command passes a gate, before and after."""

    def __init__(self, database: Any, gate: Callable[[], None]) -> None:
        self._database = database
        self._gate = gate

    def __call__(self, name: str) -> Any:
        return GatedCollection(self._database[name], self._gate)


class GatedCollection:
    def __init__(self, collection: Any, gate: Callable[[], None]) -> None:
        self._collection = collection
        self._gate = gate

    def __getattr__(self, name: str) -> Any:
        assert name in COMMANDS, name

        def command(*arguments: Any, **settings: Any) -> Any:
            self._gate()
            result = getattr(self._collection, name)(*arguments, **settings)
            result = list(result) if name == "find" else result
            self._gate()
            return result

        return command


class Stock:
    """A database with three products, and what must hold of them."""

    def __init__(self, database: Any) -> None:
        self.database = database
        self.moves = Moves(database.get_collection)

    def reset(self) -> None:
        self.database["reservations"].delete_many({})
        self.database["products"].delete_many({})
        self.database["products"].insert_many(
            [
                {"_id": name, "stock": stock, "takes": {}, "gives": {}}
                for name, stock in INITIAL.items()
            ]
        )

    def check(self) -> dict[str, int]:
        """After everything came to rest: stock and held reservations are what there was, and no mark is left."""
        self.moves.tidy()
        held = dict.fromkeys(INITIAL, 0)
        for record in self.database["reservations"].find({}):
            assert record["state"] in {"held", "released", "taking"}
            if record["state"] == "held":
                for name, quantity in record["items"]:
                    held[name] += quantity
        left = {}
        for product in self.database["products"].find({}):
            assert product["takes"] == product["gives"] == {}, product
            left[product["_id"]] = product["stock"]
        assert {name: left[name] + held[name] for name in INITIAL} == INITIAL
        assert min(left.values()) >= 0
        return left


@pytest.fixture
def stock(mongo_server: MongoServer, mongo_database: str) -> Iterator[Stock]:
    with pymongo.MongoClient(mongo_server.url) as client:  # type: ignore[var-annotated]
        yield Stock(client[mongo_database])
        client.drop_database(mongo_database)


def crash_at(step: int) -> Callable[[], None]:
    passed = 0

    def gate() -> None:
        nonlocal passed
        passed += 1
        if passed == step:
            raise CrashedError

    return gate


def crash_everywhere(
    stock: Stock, prepare: Callable[[], object], operation: str, *arguments: Any
) -> Iterator[int]:
    """Run an operation again and again, crashing one gate later each time, until it comes to its end."""
    for step in range(1, 1_000):
        stock.reset()
        prepare()
        moves = Moves(Gated(stock.database, crash_at(step)))
        try:
            getattr(moves, operation)(*arguments)
        except CrashedError:
            yield step
        except OutOfStockError:
            return
        else:
            return
    raise AssertionError("it never ends")


ITEMS = [["p2", 2], ["p1", 3]]


def test_a_crash_at_any_command_of_a_reservation_is_resumed(stock: Stock) -> None:
    steps = 0
    for step in crash_everywhere(stock, lambda: None, "reserve", "r", ITEMS, 1):
        steps = step
        assert stock.moves.reserve("r", ITEMS, 2)["state"] == "held"
        assert stock.check() == {"p1": 7, "p2": 3, "p3": 1}
    assert steps >= 2 * 7  # look, insert, look, two takes, hold, two marks and one more look


def test_a_crash_at_any_command_of_a_reservation_is_released(stock: Stock) -> None:
    for _ in crash_everywhere(stock, lambda: None, "reserve", "r", ITEMS, 1):
        assert stock.moves.release("r", 2)["state"] == "released"
        assert stock.check() == INITIAL
        assert stock.moves.reserve("r", ITEMS, 3)["state"] == "released"
        assert stock.check() == INITIAL


def test_a_crash_at_any_command_of_a_refused_reservation_takes_nothing(stock: Stock) -> None:
    short = [["p3", 2], ["p1", 3], ["p2", 1]]
    steps = 0
    for step in crash_everywhere(stock, lambda: None, "reserve", "r", short, 1):
        steps = step
        with pytest.raises(OutOfStockError) as caught:
            stock.moves.reserve("r", short, 2)
        assert caught.value.shortages == [("p3", 2, 1)]
        assert stock.check() == INITIAL
    assert steps >= 2 * 8
    # Nothing is remembered of it: with fewer items, the same id may come again.
    assert stock.moves.reserve("r", [["p3", 1]], 3)["state"] == "held"


def test_a_crash_at_any_command_of_a_release_gives_back_once(stock: Stock) -> None:
    steps = 0
    for step in crash_everywhere(
        stock, lambda: stock.moves.reserve("r", ITEMS, 1), "release", "r", 2
    ):
        steps = step
        assert stock.moves.release("r", 3)["state"] == "released"
        assert stock.check() == INITIAL
    assert steps >= 2 * 9


def test_what_nobody_comes_back_for_is_tidied(stock: Stock) -> None:
    for _ in crash_everywhere(stock, lambda: stock.moves.reserve("r", ITEMS, 1), "release", "r", 2):
        state = stock.database["reservations"].find_one({"_id": "r"})["state"]
        assert stock.check() == ({"p1": 7, "p2": 3, "p3": 1} if state == "held" else INITIAL)


class Actors:
    """Threads of which one at a time passes its gate, and may be left asleep or killed there."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.turn = threading.Condition()
        self.chosen: int | None = None
        self.waiting: set[int] = set()
        self.running: set[int] = set()
        self.doomed: set[int] = set()
        self.errors: list[BaseException] = []

    def start(self, number: int, work: Callable[[Callable[[], None]], object]) -> threading.Thread:
        def gate() -> None:
            with self.turn:
                self.waiting.add(number)
                self.turn.notify_all()
                assert self.turn.wait_for(lambda: self.chosen == number, 20)
                self.chosen = None
                self.waiting.discard(number)
                if number in self.doomed:
                    raise CrashedError

        def body() -> None:
            try:
                work(gate)
            except (CrashedError, OutOfStockError):
                pass
            except BaseException as error:  # noqa: BLE001 - told to the test
                self.errors.append(error)
            finally:
                with self.turn:
                    self.running.discard(number)
                    self.turn.notify_all()

        self.running.add(number)
        thread = threading.Thread(target=body)
        thread.start()
        return thread

    def play(self) -> None:
        """Let one after the other go on, in bursts, until all have ended."""
        favourite = 0
        while True:
            with self.turn:
                assert self.turn.wait_for(
                    lambda: self.chosen is None and self.waiting == self.running, 20
                )
                if not self.running:
                    return
                if favourite not in self.waiting or self.random.random() < 0.15:
                    favourite = self.random.choice(sorted(self.waiting))
                if self.random.random() < 0.02:
                    self.doomed.add(favourite)
                self.chosen = favourite
                self.turn.notify_all()


@pytest.mark.timeout(300)
def test_stock_balances_however_late_anybody_wakes_up(stock: Stock) -> None:
    """Reserving, repeating, releasing and tidying at once, interleaved at random, some killed."""
    orders = {"a": [["p1", 3], ["p2", 2]], "b": [["p2", 4], ["p3", 1]], "c": [["p3", 1], ["p1", 8]]}
    outcomes: set[tuple[int, ...]] = set()
    for seed in range(SEEDS):
        stock.reset()
        actors = Actors(seed)
        names = actors.random.choices([*sorted(orders), "tidy"], weights=[3, 3, 3, 1], k=5)
        threads = []
        for number, name in enumerate(names):
            releases = actors.random.random() < 0.5

            def work(
                gate: Callable[[], None],
                name: str = name,
                releases: bool = releases,
                first: bool = name == names[0],
            ) -> None:
                moves = Moves(Gated(stock.database, gate))
                if name == "tidy":
                    moves.tidy()
                elif not releases:
                    moves.reserve(name, orders[name], 1)
                else:
                    if first:
                        moves.reserve(name, orders[name], 1)
                    moves.release(name, 2)

            threads.append(actors.start(number, work))
        actors.play()
        for thread in threads:
            thread.join()
        assert actors.errors == [], seed
        # Whoever was killed comes back, as a saga does.
        for record in list(stock.database["reservations"].find({"state": "taking"})):
            stock.moves.release(record["_id"], 3)
        outcomes.add(tuple(stock.check().values()))
    assert len(outcomes) >= 4, "the schedules differ"
