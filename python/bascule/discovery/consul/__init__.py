"""Consul: where services are, keys and values, sessions, locks and leaders.

Imported by whoever uses it, not with :mod:`bascule.discovery`: it brings httpx along. Namespaces and
partitions of Consul Enterprise are not supported.
"""

from bascule.discovery.consul._agent import Agent as Agent
from bascule.discovery.consul._agent import Check as Check
from bascule.discovery.consul._agent import GrpcCheck as GrpcCheck
from bascule.discovery.consul._agent import HttpCheck as HttpCheck
from bascule.discovery.consul._agent import ServiceDefinition as ServiceDefinition
from bascule.discovery.consul._agent import TtlCheck as TtlCheck
from bascule.discovery.consul._client import ConsulClient as ConsulClient
from bascule.discovery.consul._errors import ConsulAnswerError as ConsulAnswerError
from bascule.discovery.consul._errors import ConsulDeniedError as ConsulDeniedError
from bascule.discovery.consul._errors import ConsulError as ConsulError
from bascule.discovery.consul._errors import ConsulStatusError as ConsulStatusError
from bascule.discovery.consul._errors import ConsulUnavailableError as ConsulUnavailableError
from bascule.discovery.consul._errors import LockLostError as LockLostError
from bascule.discovery.consul._errors import TransactionError as TransactionError
from bascule.discovery.consul._health import Health as Health
from bascule.discovery.consul._instances import Protection as Protection
from bascule.discovery.consul._kv import KeyValue as KeyValue
from bascule.discovery.consul._kv import KvOperation as KvOperation
from bascule.discovery.consul._kv import KvStore as KvStore
from bascule.discovery.consul._lock import HeldLock as HeldLock
from bascule.discovery.consul._lock import LeaderElection as LeaderElection
from bascule.discovery.consul._registrar import ConsulRegistrar as ConsulRegistrar
from bascule.discovery.consul._registrar import ConsulRegistration as ConsulRegistration
from bascule.discovery.consul._registrar import RegistrationState as RegistrationState
from bascule.discovery.consul._resolver import ConsulResolver as ConsulResolver
from bascule.discovery.consul._sessions import Sessions as Sessions
from bascule.discovery.consul._settings import ConsulSettings as ConsulSettings
from bascule.discovery.consul._stats import ConsulStats as ConsulStats
from bascule.discovery.consul._stats import ListSource as ListSource
from bascule.discovery.consul._stats import ListStatus as ListStatus
from bascule.discovery.consul._target import consul_target as consul_target
from bascule.discovery.consul._wire import AgentService as AgentService
from bascule.discovery.consul._wire import CheckState as CheckState
from bascule.discovery.consul._wire import NodeEntry as NodeEntry
from bascule.discovery.consul._wire import ServiceEntry as ServiceEntry
from bascule.discovery.consul._wire import ServiceInfo as ServiceInfo
from bascule.discovery.consul._wire import SessionInfo as SessionInfo
from bascule.discovery.consul._wire import Weights as Weights
