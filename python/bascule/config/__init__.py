"""Configuration: layers from memory, files, the environment and Consul as one typed value."""

from bascule.config._config import Changes as Changes
from bascule.config._config import Config as Config
from bascule.config._config import Problem as Problem
from bascule.config._config import Snapshot as Snapshot
from bascule.config._consul import ConsulSource as ConsulSource
from bascule.config._document import MISSING as MISSING
from bascule.config._env import EnvSource as EnvSource
from bascule.config._file import FileSource as FileSource
from bascule.config._memory import MemorySource as MemorySource
from bascule.config._source import ConflictError as ConflictError
from bascule.config._source import Layer as Layer
from bascule.config._source import Revision as Revision
from bascule.config._source import Source as Source
from bascule.config._source import WritableSource as WritableSource
from bascule.config._url import source_from as source_from
