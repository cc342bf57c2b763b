"""The life cycle of a service."""

from bascule._tasks import owned_tasks as owned_tasks
from bascule.app._app import App as App
from bascule.app._app import AppStatus as AppStatus
from bascule.app._app import Phase as Phase
from bascule.app._gateway import GatewayApp as GatewayApp
from bascule.app._gateway import GatewayLife as GatewayLife
from bascule.app._gateway import GatewayStatus as GatewayStatus
from bascule.app._life import Life as Life
from bascule.app._memory import settle_memory as settle_memory
from bascule.app._resource import Resource as Resource
from bascule.app._run import ExitCode as ExitCode
from bascule.app._run import run as run
