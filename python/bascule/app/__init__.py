"""The life cycle of a service."""

from bascule._tasks import owned_tasks as owned_tasks
from bascule.app._memory import settle_memory as settle_memory
