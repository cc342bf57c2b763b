"""List and watch, as the API server offers them.

Source: Kubernetes' documentation, "Kubernetes API Concepts": a resource version is opaque; a watch
goes on from the one of the list, of the last event or bookmark; 410 Gone means to list again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import httpx
import msgspec

from bascule.discovery.kubernetes._slices import EndpointSlice, ObjectMeta, SliceList
from bascule.errors import BasculeError, TransportError

if TYPE_CHECKING:
    from collections.abc import Callable

    from bascule.discovery.kubernetes._settings import KubernetesSettings

__all__ = ["Api", "GoneError", "KubernetesError"]

#: Seconds for an answer to begin, and between two parts of it.
TIMEOUT = 10.0

#: Seconds after which the server ends a watch. Tokens are read anew for the next one.
WATCH = 290

#: Seconds without a word in a watch: bookmarks come about every minute.
SILENCE = 150.0

#: Objects in a page of a list.
PAGE = 500

#: Bytes of an answer, and of an event.
LARGEST = 32 * 1024 * 1024


class KubernetesError(BasculeError):
    """The API server refused or said nonsense."""


class GoneError(KubernetesError):
    """The resource version is too old: list again."""


class _Status(msgspec.Struct):
    code: int = 0
    message: str = ""


class _Bookmarked(msgspec.Struct):
    metadata: ObjectMeta


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


class Api:
    """Requests for the EndpointSlices of one service, inside of its ``async with`` of the client."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        settings: KubernetesSettings,
        namespace: str,
        service: str,
    ) -> None:
        self._client = client
        self._settings = settings
        self._limiter = anyio.CapacityLimiter(1)
        self._path = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
        self._selector = {"labelSelector": f"kubernetes.io/service-name={service}"}

    async def list(self) -> tuple[dict[str, EndpointSlice], str]:
        """All slices by name, and the resource version to watch from.

        :raises TransportError, KubernetesError: if that fails
        """
        slices: dict[str, EndpointSlice] = {}
        page = ""
        while True:
            answer = await self._page(page)
            slices |= {each.metadata.name: each for each in answer.items or ()}
            page = answer.metadata.next_page
            if not page:
                if not answer.metadata.resource_version:
                    message = "the API server's list has no resource version"
                    raise KubernetesError(message)
                return slices, answer.metadata.resource_version

    async def _page(self, page: str) -> SliceList:
        params = {**self._selector, "limit": str(PAGE)}
        if page:
            params["continue"] = page
        body = bytearray()
        await self._request(params, TIMEOUT, lambda chunk: _collect(body, chunk))
        answer: SliceList = _decode(bytes(body), SliceList)
        return answer

    async def watch(
        self,
        version: str,
        begun: Callable[[], None],
        changed: Callable[[str, EndpointSlice | None, str], None],
    ) -> None:
        """Follow changes until the server ends the watch, or is silent for too long.

        :param begun: called when the server has accepted it
        :param changed: takes the name of a slice, the slice or None if it is gone, and the resource
            version from which to go on; no name for a bookmark
        :raises GoneError: if ``version`` is too old
        :raises TransportError, KubernetesError: if it fails in another way
        """
        rest = bytearray()
        failure: KubernetesError | None = None

        def take(chunk: bytes) -> bool:
            nonlocal failure
            _collect(rest, chunk)
            *lines, last = bytes(rest).split(b"\n")
            rest[:] = last
            try:
                for line in lines:
                    if line.strip():
                        _tell(line, changed)
            except KubernetesError as error:
                failure = error
            return failure is not None

        params = {
            **self._selector,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(WATCH),
        }
        await self._request(params, SILENCE, take, begun)
        if failure is not None:
            raise failure

    async def _request(
        self,
        params: dict[str, str],
        silence: float,
        take: Callable[[bytes], bool | None],
        begun: Callable[[], None] | None = None,
    ) -> None:
        """:param take: gets each part of the answer, and says True to end it
        :param begun: called when a good answer begins; then silence is a good end, too
        """
        failure: KubernetesError | None = None
        try:
            headers = await anyio.to_thread.run_sync(self._settings.headers, limiter=self._limiter)
            timeout = httpx.Timeout(TIMEOUT, read=silence)
            request = self._client.build_request(
                "GET", self._path, params=params, headers=headers, timeout=timeout
            )
            with anyio.fail_after(TIMEOUT):
                response = await self._client.send(request, stream=True)
            if begun is not None and response.status_code == 200:
                begun()
            # Leaving midway would leave httpx's generators behind: a cancellation goes through them.
            with anyio.CancelScope() as scope:
                body = bytearray()
                try:
                    async for chunk in response.aiter_raw():
                        try:
                            if response.status_code != 200:
                                _collect(body, chunk)
                            elif take(chunk):
                                scope.cancel()
                        except KubernetesError as error:
                            failure = error
                            scope.cancel()
                except httpx.ReadTimeout:
                    if begun is None:
                        raise
                finally:
                    with anyio.CancelScope(shield=True):
                        await response.aclose()
        except (httpx.HTTPError, OSError, TimeoutError) as error:
            reason = str(error) or type(error).__name__
            raise TransportError(f"the API server does not answer: {reason}") from error
        if failure is not None:
            raise failure
        if response.status_code != 200:
            raise _refusal(response.status_code, bytes(body))


def _collect(body: bytearray, chunk: bytes) -> None:
    if len(body) + len(chunk) > LARGEST:
        message = f"the API server's answer has more than {LARGEST} bytes"
        raise KubernetesError(message)
    body += chunk


def _decode(content: Any, kind: Any) -> Any:
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise KubernetesError(f"cannot use the API server's answer: {error}") from error


def _tell(line: bytes, changed: Callable[[str, EndpointSlice | None, str], None]) -> None:
    event: _Event = _decode(line, _Event)
    if event.type == "ERROR":
        status: _Status = _decode(event.object, _Status)
        raise _refusal(status.code, bytes(event.object))
    if event.type == "BOOKMARK":
        bookmark: _Bookmarked = _decode(event.object, _Bookmarked)
        changed("", None, bookmark.metadata.resource_version)
    elif event.type in {"ADDED", "MODIFIED", "DELETED"}:
        found: EndpointSlice = _decode(event.object, EndpointSlice)
        kept = None if event.type == "DELETED" else found
        changed(found.metadata.name, kept, found.metadata.resource_version)


def _refusal(code: int, body: bytes) -> KubernetesError:
    try:
        message = msgspec.json.decode(body, type=_Status).message
    except (msgspec.MsgspecError, RecursionError):
        message = body[:200].decode(errors="replace")
    text = " ".join(message.split())[:300] or "no reason given"
    kind = GoneError if code == 410 else KubernetesError
    return kind(f"the API server answered {code}: {text}")
