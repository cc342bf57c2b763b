"""An HTTP/2 gateway in front of gRPC services: JSON routes from ``google.api.http`` annotations."""

from bascule.gateway._access import AccessEntry as AccessEntry
from bascule.gateway._access import AccessLog as AccessLog
from bascule.gateway._access import LineLog as LineLog
from bascule.gateway._auth import Authenticator as Authenticator
from bascule.gateway._auth import JwtAuthenticator as JwtAuthenticator
from bascule.gateway._config import AuthConfig as AuthConfig
from bascule.gateway._config import Created as Created
from bascule.gateway._config import GatewayConfig as GatewayConfig
from bascule.gateway._config import IdempotencyConfig as IdempotencyConfig
from bascule.gateway._config import LimitConfig as LimitConfig
from bascule.gateway._config import RouteConfig as RouteConfig
from bascule.gateway._config import UpstreamConfig as UpstreamConfig
from bascule.gateway._devkey import DevelopmentKey as DevelopmentKey
from bascule.gateway._endpoints import HandlerEndpoint as HandlerEndpoint
from bascule.gateway._exchange import Exchange as Exchange
from bascule.gateway._file import GatewayFile as GatewayFile
from bascule.gateway._gateway import Gateway as Gateway
from bascule.gateway._keys import KeySource as KeySource
from bascule.gateway._keys import StaticKeys as StaticKeys
from bascule.gateway._keys import VerificationKey as VerificationKey
from bascule.gateway._limits import Admission as Admission
from bascule.gateway._remote_keys import RemoteKeys as RemoteKeys
from bascule.gateway._router import Router as Router
from bascule.gateway._tokens import Identity as Identity
from bascule.gateway._transcode import Transcoder as Transcoder
from bascule.gateway._transcode import descriptor_set as descriptor_set
