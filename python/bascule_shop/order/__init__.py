"""The order service."""

from bascule_shop.order._clients import PaymentClient as PaymentClient
from bascule_shop.order._clients import ProductClient as ProductClient
from bascule_shop.order._clients import UserClient as UserClient
from bascule_shop.order._saga import ORDER_CREATED as ORDER_CREATED
from bascule_shop.order._saga import OrderCreated as OrderCreated
from bascule_shop.order._service import OrderService as OrderService
from bascule_shop.order._store import OrderStore as OrderStore
from bascule_shop.order._store import SqlOrderStore as SqlOrderStore
