"""SQL databases for both loops: SQLAlchemy Core in worker threads."""

from bascule.sql._database import Database as Database
from bascule.sql._stats import DatabaseStats as DatabaseStats
from bascule.sql._tables import EXACT_TEXT as EXACT_TEXT
from bascule.sql._tables import exact as exact
from bascule.sql._time import database_micros as database_micros
from bascule.sql._time import from_micros as from_micros
from bascule.sql._time import to_micros as to_micros
