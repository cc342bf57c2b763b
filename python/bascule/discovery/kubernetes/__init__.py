"""Kubernetes: the pods behind a service, by its EndpointSlices.

Imported by whoever uses it, not with :mod:`bascule.discovery`: it brings httpx along.
"""

from bascule.discovery.kubernetes._api import GoneError as GoneError
from bascule.discovery.kubernetes._api import KubernetesError as KubernetesError
from bascule.discovery.kubernetes._resolver import KubernetesResolver as KubernetesResolver
from bascule.discovery.kubernetes._resolver import kubernetes_target as kubernetes_target
from bascule.discovery.kubernetes._settings import KubernetesSettings as KubernetesSettings
