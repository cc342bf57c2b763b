"""What most of the samples do not exceed."""

import math
from collections.abc import Sequence


def percentile(samples: Sequence[float], percent: float) -> float:
    """Answer with the sample of the nearest rank: of fewer than 100, the 99th percentile is the most.

    :raises IndexError: if there is no sample
    """
    return sorted(samples)[max(math.ceil(len(samples) * percent / 100), 1) - 1]
