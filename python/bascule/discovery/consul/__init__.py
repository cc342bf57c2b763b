"""Consul: where services are, keys and values, sessions, locks and leaders.

Imported by whoever uses it, not with :mod:`bascule.discovery`: it brings httpx along.
"""

from bascule.discovery.consul._client import ConsulClient as ConsulClient
from bascule.discovery.consul._errors import ConsulAnswerError as ConsulAnswerError
from bascule.discovery.consul._errors import ConsulDeniedError as ConsulDeniedError
from bascule.discovery.consul._errors import ConsulError as ConsulError
from bascule.discovery.consul._errors import ConsulStatusError as ConsulStatusError
from bascule.discovery.consul._errors import ConsulUnavailableError as ConsulUnavailableError
from bascule.discovery.consul._errors import LockLostError as LockLostError
from bascule.discovery.consul._errors import TransactionError as TransactionError
from bascule.discovery.consul._kv import KeyValue as KeyValue
from bascule.discovery.consul._kv import KvOperation as KvOperation
from bascule.discovery.consul._kv import KvStore as KvStore
from bascule.discovery.consul._settings import ConsulSettings as ConsulSettings
