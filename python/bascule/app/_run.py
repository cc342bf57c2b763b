"""A service as the main function of a process."""

from __future__ import annotations

import enum
import logging
import signal
import threading
from typing import TYPE_CHECKING

import anyio

from bascule.app._gateway import GatewayApp, GatewayLife
from bascule.app._life import Life
from bascule.app._resource import reason
from bascule.errors import ConfigurationError

if TYPE_CHECKING:
    from anyio.abc import TaskStatus

    from bascule.app._app import App

__all__ = ["ExitCode", "run"]

logger = logging.getLogger("bascule.app")


class ExitCode(enum.IntEnum):
    """What :func:`run` returns, beside 128 + the number of a signal that came twice."""

    STOPPED = 0
    """It was told to stop, and ended in order."""
    FAILED = 1
    """It could not start, or broke: starting it again may help."""
    MISCONFIGURED = 2
    """A setting cannot work: starting it again does not help."""


async def run(app: App | GatewayApp) -> int:
    """Run a service, or a gateway, until SIGTERM or SIGINT, and return the exit code for the process.

    Loads the configuration, opens the resources, serves, becomes ready when all that it requires
    is open, and registers. A first signal ends it in order: NOT_SERVING, deregister, wait until
    clients know, drain, close in the reverse order. A second one cancels what is in progress.
    What fails is logged, with the exit code for it. Cancelling it is like a second signal.

    Signals are for the main thread; in any other one it runs until it is cancelled.
    """
    if isinstance(app, GatewayApp):
        life: GatewayLife | Life = GatewayLife(app)
    else:
        life = Life(app, whole_process=True)
    code: int = ExitCode.STOPPED
    try:
        async with anyio.create_task_group() as tasks:
            signals = _Signals(life)
            if threading.current_thread() is threading.main_thread():
                await tasks.start(signals.follow)
            await life.live()
            code = signals.code
            tasks.cancel_scope.cancel()
    except* Exception as group:
        error = _only(group)
        wrong = isinstance(error, ConfigurationError)
        code = ExitCode.MISCONFIGURED if wrong else ExitCode.FAILED
        extra = {"app": life.app.name, "reason": reason(error), "exit_code": int(code)}
        # The text of these says all: a traceback would tell nothing about it.
        plain = isinstance(error, (ConfigurationError, OSError))
        logger.log(logging.ERROR, "failed", extra=extra, exc_info=None if plain else error)
    else:
        logger.info("ended", extra={"app": life.app.name, "exit_code": int(code)})
    return code


class _Signals:
    def __init__(self, life: Life | GatewayLife) -> None:
        self.code: int = ExitCode.STOPPED
        self._life = life

    async def follow(self, *, task_status: TaskStatus[None]) -> None:
        told = False
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            task_status.started()
            async for number in signals:
                extra = {"app": self._life.app.name, "signal": signal.Signals(number).name}
                if told:
                    logger.warning("told to stop again: now", extra=extra)
                    self.code = 128 + number
                    self._life.hurry()
                else:
                    logger.info("told to stop", extra=extra)
                    self._life.stop()
                told = True


def _only(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
