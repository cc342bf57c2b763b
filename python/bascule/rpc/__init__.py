"""gRPC client and server for asyncio and trio."""

import importlib
from typing import TYPE_CHECKING

from bascule.errors import RpcError as RpcError
from bascule.errors import Status as Status
from bascule.rpc._binding import Servable as Servable
from bascule.rpc._channel import Channel as Channel
from bascule.rpc._client_stream import Stream as Stream
from bascule.rpc._codec import Codec as Codec
from bascule.rpc._codec import codec_for as codec_for
from bascule.rpc._context import CallContext as CallContext
from bascule.rpc._context import ClientCallContext as ClientCallContext
from bascule.rpc._context import ClientInterceptor as ClientInterceptor
from bascule.rpc._context import MetadataLike as MetadataLike
from bascule.rpc._context import ServerInterceptor as ServerInterceptor
from bascule.rpc._context import TLSInfo as TLSInfo
from bascule.rpc._context import call_context as call_context
from bascule.rpc._keepalive import KeepaliveSettings as KeepaliveSettings
from bascule.rpc._load_balancing import FailurePercentageEjection as FailurePercentageEjection
from bascule.rpc._load_balancing import LoadBalancing as LoadBalancing
from bascule.rpc._load_balancing import LoadReports as LoadReports
from bascule.rpc._load_balancing import OutlierDetection as OutlierDetection
from bascule.rpc._load_balancing import SlowStart as SlowStart
from bascule.rpc._load_balancing import Subset as Subset
from bascule.rpc._load_balancing import SuccessRateEjection as SuccessRateEjection
from bascule.rpc._method import Cardinality as Cardinality
from bascule.rpc._method import Method as Method
from bascule.rpc._method import MethodHandler as MethodHandler
from bascule.rpc._method_config import HedgingPolicy as HedgingPolicy
from bascule.rpc._method_config import MethodConfig as MethodConfig
from bascule.rpc._method_config import RetryPolicy as RetryPolicy
from bascule.rpc._method_config import RetryThrottling as RetryThrottling
from bascule.rpc._retry import Attempts as Attempts
from bascule.rpc._server import Server as Server
from bascule.rpc._server import ServerLimits as ServerLimits
from bascule.rpc._service_config import ServiceConfig as ServiceConfig
from bascule.rpc._snapshot import AttemptsSnapshot as AttemptsSnapshot
from bascule.rpc._snapshot import ChannelSnapshot as ChannelSnapshot
from bascule.rpc._snapshot import ConnectivityState as ConnectivityState
from bascule.rpc._snapshot import ResolverSnapshot as ResolverSnapshot
from bascule.rpc._snapshot import SubchannelSnapshot as SubchannelSnapshot
from bascule.rpc._streams import ServerStream as ServerStream
from bascule.rpc._tracing import ClientTracing as ClientTracing
from bascule.rpc._tracing import ServerTracing as ServerTracing
from bascule.rpc._web import WebSettings as WebSettings

if TYPE_CHECKING:
    from bascule.rpc._health import HealthService as HealthService
    from bascule.rpc._reflection import ReflectionService as ReflectionService
else:
    #: Imported when they are asked for: google protobuf takes longer to import than all of bascule.
    _LAZY = {
        "HealthService": "bascule.rpc._health",
        "ReflectionService": "bascule.rpc._reflection",
    }

    def __getattr__(name: str) -> object:
        if name not in _LAZY:
            message = f"module {__name__!r} has no attribute {name!r}"
            raise AttributeError(message)
        found = globals()[name] = getattr(importlib.import_module(_LAZY[name]), name)
        return found


from bascule.rpc._subchannel import ConnectionBackoff as ConnectionBackoff
