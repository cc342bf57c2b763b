"""The product service."""

from bascule_shop.product._open import is_mongo as is_mongo
from bascule_shop.product._open import open_product_store as open_product_store
from bascule_shop.product._service import ProductService as ProductService
from bascule_shop.product._store import OutOfStockError as OutOfStockError
from bascule_shop.product._store import ProductStore as ProductStore
from bascule_shop.product._store import SqlProductStore as SqlProductStore
