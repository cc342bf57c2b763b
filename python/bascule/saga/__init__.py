"""Sagas: steps that are undone in reverse when a later one fails."""

from bascule.saga._coordinator import Backoff as Backoff
from bascule.saga._coordinator import SagaCoordinator as SagaCoordinator
from bascule.saga._definition import Action as Action
from bascule.saga._definition import Compensation as Compensation
from bascule.saga._definition import Saga as Saga
from bascule.saga._definition import Step as Step
from bascule.saga._definition import StepCall as StepCall
from bascule.saga._errors import DuplicateSagaError as DuplicateSagaError
from bascule.saga._errors import SagaError as SagaError
from bascule.saga._errors import SagaFailedError as SagaFailedError
from bascule.saga._errors import SagaParkedError as SagaParkedError
from bascule.saga._log import MemorySagaLog as MemorySagaLog
from bascule.saga._log import SagaLog as SagaLog
from bascule.saga._log import SagaRecord as SagaRecord
from bascule.saga._log import SagaState as SagaState
