"""The tables of the shop's databases, revision by revision: one history a service.

Each folder beside this file is a history. A change of a table in code goes with one more revision:
a file ``r0002_what_changes.py`` whose ``down_revision`` is the one before. Revisions may be run again
after a crash in their middle, as MySQL keeps what a transaction has done to tables, so they look first
(``if_not_exists``).
"""

from bascule_shop.migrations._migrate import HEADS as HEADS
from bascule_shop.migrations._migrate import METADATA as METADATA
from bascule_shop.migrations._migrate import migrate as migrate
