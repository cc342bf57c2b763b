"""gRPC client and server for asyncio and trio."""

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
from bascule.rpc._context import call_context as call_context
from bascule.rpc._health import HealthService as HealthService
from bascule.rpc._method import Cardinality as Cardinality
from bascule.rpc._method import Method as Method
from bascule.rpc._method import MethodHandler as MethodHandler
from bascule.rpc._method_config import HedgingPolicy as HedgingPolicy
from bascule.rpc._method_config import MethodConfig as MethodConfig
from bascule.rpc._method_config import RetryPolicy as RetryPolicy
from bascule.rpc._method_config import RetryThrottling as RetryThrottling
from bascule.rpc._reflection import ReflectionService as ReflectionService
from bascule.rpc._server import Server as Server
from bascule.rpc._server import ServerLimits as ServerLimits
from bascule.rpc._streams import ServerStream as ServerStream
