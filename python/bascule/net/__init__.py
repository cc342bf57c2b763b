"""Sockets, TLS and event loops: the only place that knows asyncio from trio."""

from typing import TYPE_CHECKING

from bascule.net._address import Address as Address
from bascule.net._address import parse_address as parse_address
from bascule.net._http import HttpLimits as HttpLimits
from bascule.net._http import HttpRequest as HttpRequest
from bascule.net._http import HttpResponse as HttpResponse
from bascule.net._http import HttpServer as HttpServer
from bascule.net._tls import ClientTLS as ClientTLS
from bascule.net._tls import ServerTLS as ServerTLS

if TYPE_CHECKING:
    from bascule.net._devcert import development_certificate as development_certificate
else:

    def __getattr__(name: str) -> object:
        """Import cryptography only for those who need it: it takes longer than all of bascule."""
        if name != "development_certificate":
            message = f"module {__name__!r} has no attribute {name!r}"
            raise AttributeError(message)
        from bascule.net._devcert import development_certificate

        globals()[name] = development_certificate
        return development_certificate
