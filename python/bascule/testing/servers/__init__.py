"""Real servers for integration tests: each on 127.0.0.1, on free ports, in a folder of its own."""

from bascule.testing.servers._consul import ConsulServer as ConsulServer
from bascule.testing.servers._errors import MissingProgramError as MissingProgramError
from bascule.testing.servers._errors import StartError as StartError
from bascule.testing.servers._jaeger import JaegerServer as JaegerServer
from bascule.testing.servers._kubernetes import EtcdServer as EtcdServer
from bascule.testing.servers._kubernetes import KubeApiServer as KubeApiServer
from bascule.testing.servers._mariadb import MariaDBServer as MariaDBServer
from bascule.testing.servers._mongo import MongoJavaServer as MongoJavaServer
from bascule.testing.servers._mongo import MongoServer as MongoServer
from bascule.testing.servers._mongo import NxMongoServer as NxMongoServer
from bascule.testing.servers._prometheus import AlertmanagerServer as AlertmanagerServer
from bascule.testing.servers._prometheus import PrometheusServer as PrometheusServer
from bascule.testing.servers._prometheus import Series as Series
from bascule.testing.servers._redis import RedisServer as RedisServer
from bascule.testing.servers._server import LocalServer as LocalServer
from bascule.testing.servers._temporal import TemporalServer as TemporalServer
