"""Events: something happened, and whoever cares is told."""

from bascule.events._bus import BatchHandler as BatchHandler
from bascule.events._bus import EventBus as EventBus
from bascule.events._bus import Handler as Handler
from bascule.events._delivery import Redelivery as Redelivery
from bascule.events._event import Event as Event
from bascule.events._event import Topic as Topic
from bascule.events._inbox import SqlInbox as SqlInbox
from bascule.events._inbox import inbox_tables as inbox_tables
from bascule.events._memory import MemoryEventBus as MemoryEventBus
from bascule.events._outbox import LeaseLostError as LeaseLostError
from bascule.events._outbox import OutboxClaim as OutboxClaim
from bascule.events._outbox import OutboxRelay as OutboxRelay
from bascule.events._outbox import OutboxStore as OutboxStore
from bascule.events._redis_bus import DeadLetter as DeadLetter
from bascule.events._redis_bus import RedisEventBus as RedisEventBus
from bascule.events._sql_outbox import SqlOutbox as SqlOutbox
from bascule.events._sql_outbox import outbox_tables as outbox_tables
