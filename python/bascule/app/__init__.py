"""The life cycle of a service."""

from bascule._tasks import owned_tasks as owned_tasks
