"""The payment service."""

from bascule_shop.payment._provider import PaymentProvider as PaymentProvider
from bascule_shop.payment._provider import PaymentRefusedError as PaymentRefusedError
from bascule_shop.payment._provider import ProviderDownError as ProviderDownError
from bascule_shop.payment._provider import SimulatedProvider as SimulatedProvider
from bascule_shop.payment._service import PaymentService as PaymentService
from bascule_shop.payment._store import PaymentStore as PaymentStore
from bascule_shop.payment._store import SqlPaymentStore as SqlPaymentStore
