"""The barrier for MongoDB: in the document that a step changes, by the update that changes it."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from bascule.errors import ConfigurationError
from bascule.saga._barrier import LateActionError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pymongo.collection import Collection

    from bascule.saga._call import SagaCall
    from bascule.saga._definition import StepCall

__all__ = ["MongoBarrier", "Passage"]


class Passage(StrEnum):
    """What became of an action or a compensation."""

    DONE = "done"
    """It took effect now."""
    REPEATED = "repeated"
    """It had taken effect before: answer as then."""
    EMPTY = "empty"
    """There was nothing to undo, and there will not be."""
    REFUSED = "refused"
    """The document is not there, or not as the action needs it: nothing was changed."""


class MongoBarrier:
    """Makes a step's changes of one document, each once, and not after they were undone.

    No transaction is needed: change and note are one conditional update. The notes are a part of the
    document (``saga_steps``): delete old ones with :meth:`forget` now and then. For a worker thread:
    pymongo blocks.

    >>> barrier.act(call, "prd_1", {"$inc": {"stock": -2}}, where={"stock": {"$gte": 2}})
    >>> barrier.undo(call, "prd_1", {"$inc": {"stock": 2}})

    :param collection: of the documents
    :param field: of the documents, that the notes are in
    :raises ConfigurationError: if pymongo is not installed
    """

    def __init__(self, collection: Collection[Any], *, field: str = "saga_steps") -> None:
        try:
            from pymongo.errors import DuplicateKeyError
        except ImportError as error:
            raise ConfigurationError(
                "MongoBarrier needs pymongo: pip install 'bascule[mongo]'"
            ) from error
        self._duplicate = DuplicateKeyError
        self._collection = collection
        self._field = field

    def act(
        self,
        call: SagaCall | StepCall,
        document_id: Any,
        update: Mapping[str, Any],
        *,
        where: Mapping[str, Any] | None = None,
    ) -> Passage:
        """Change a document, once.

        :param update: MongoDB's update operators
        :param where: what else must be true of the document
        :raises LateActionError: if the step was undone before
        """
        note = self._note(call)
        changed = self._collection.update_one(
            {**(where or {}), "_id": document_id, note: {"$exists": False}},
            _with(update, {note: _noted("done")}),
        )
        return Passage.DONE if changed.matched_count else self._earlier(call, document_id)

    def insert(self, call: SagaCall | StepCall, document: Mapping[str, Any]) -> Passage:
        """Insert a document, once. Its ``_id`` has to follow from the step, such as its key.

        :raises LateActionError: if the step was undone before
        """
        try:
            self._collection.insert_one({**document, self._field: {_digest(call): _noted("done")}})
        except self._duplicate:
            return self._earlier(call, document["_id"])
        return Passage.DONE

    def undo(
        self,
        call: SagaCall | StepCall,
        document_id: Any,
        update: Mapping[str, Any],
        *,
        inserted: bool = False,
    ) -> Passage:
        """Change a document back, once, and only if the action had changed it. Never refused.

        :param inserted: whether the action inserts the document: one that holds the note alone is left
            if there is none, so that the action comes too late. It has no other field
        """
        note = self._note(call)
        while True:
            changed = self._collection.update_one(
                {"_id": document_id, f"{note}.state": "done"},
                _with(update, {f"{note}.state": "undone"}),
            )
            if changed.matched_count:
                return Passage.DONE
            try:
                noted = self._collection.update_one(
                    {"_id": document_id, note: {"$exists": False}},
                    {"$set": {note: _noted("empty")}},
                    upsert=inserted,
                )
            except self._duplicate:
                pass
            else:
                if noted.matched_count or noted.upserted_id is not None:
                    return Passage.EMPTY
            match self._state(call, document_id):
                case "done":
                    continue  # The action came between the two.
                case "undone":
                    return Passage.REPEATED
                case _:
                    return Passage.EMPTY

    def forget(self, document_id: Any, *, older_than: float) -> int:
        """Delete a document's notes of long ago; give how many.

        :param older_than: seconds; longer than any saga may take, parked ones included
        """
        found = self._collection.find_one({"_id": document_id}, {self._field: 1}) or {}
        before = datetime.now(UTC) - timedelta(seconds=older_than)
        old = {
            f"{self._field}.{digest}": ""
            for digest, noted in found.get(self._field, {}).items()
            if noted["at"].replace(tzinfo=UTC) < before
        }
        if old:
            self._collection.update_one({"_id": document_id}, {"$unset": old})
        return len(old)

    def _note(self, call: SagaCall | StepCall) -> str:
        return f"{self._field}.{_digest(call)}"

    def _state(self, call: SagaCall | StepCall, document_id: Any) -> str | None:
        found = self._collection.find_one({"_id": document_id}, {self._field: 1}) or {}
        noted = found.get(self._field, {}).get(_digest(call))
        return None if noted is None else noted["state"]

    def _earlier(self, call: SagaCall | StepCall, document_id: Any) -> Passage:
        """Tell why an action did not take effect now."""
        match self._state(call, document_id):
            case "done":
                return Passage.REPEATED
            case None:
                return Passage.REFUSED
            case _:
                raise LateActionError(f"{call.saga_id}/{call.step}")


def _digest(call: SagaCall | StepCall) -> str:
    # An id may have dots, which separate fields.
    return hashlib.sha256(f"{call.saga_id}/{call.step}".encode()).hexdigest()[:32]


def _noted(state: str) -> dict[str, Any]:
    return {"state": state, "at": datetime.now(UTC)}


def _with(update: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    return {**update, "$set": {**update.get("$set", {}), **more}}
