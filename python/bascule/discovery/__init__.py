"""Where services are: resolvers that are watched, and registries that know."""

from bascule.discovery._dns import DnsResolver as DnsResolver
from bascule.discovery._endpoint import Endpoint as Endpoint
from bascule.discovery._endpoint import RefreshableResolver as RefreshableResolver
from bascule.discovery._endpoint import Resolver as Resolver
from bascule.discovery._endpoint import ResolverState as ResolverState
from bascule.discovery._memory import MemoryRegistry as MemoryRegistry
from bascule.discovery._registrar import Registered as Registered
from bascule.discovery._registrar import Registrar as Registrar
from bascule.discovery._registrar import Registration as Registration
from bascule.discovery._static import StaticResolver as StaticResolver
