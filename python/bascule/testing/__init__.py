"""Helpers for the tests of programs that use bascule."""

from bascule.testing._clock import VirtualClock as VirtualClock
from bascule.testing._clock import virtual_backend as virtual_backend
from bascule.testing._clock import virtual_run as virtual_run
from bascule.testing._faults import FaultProxy as FaultProxy
from bascule.testing._memory import memory_channel as memory_channel
from bascule.testing._recorder import RecordedCall as RecordedCall
from bascule.testing._recorder import Recorder as Recorder
