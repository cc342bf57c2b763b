"""Events: something happened, and whoever cares is told."""

from bascule.events._bus import EventBus as EventBus
from bascule.events._bus import Handler as Handler
from bascule.events._bus import MemoryEventBus as MemoryEventBus
from bascule.events._event import Event as Event
from bascule.events._event import Topic as Topic
from bascule.events._outbox import OutboxRelay as OutboxRelay
from bascule.events._outbox import OutboxStore as OutboxStore
