"""What is freed is kept, where the allocator is glibc's and nobody has chosen otherwise."""

import os
import subprocess
import sys

import pytest

# Ten buffers of 1 MiB, again and again, as large messages are moved.
CHURN = """
import resource, sys
from bascule.net._malloc import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
def churn():
    for _ in range(20):
        buffers = [bytearray(1 << 20) for _ in range(10)]
churn()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
churn()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(how: str, **environment: str) -> int:
    """Page faults of 200 MiB in buffers, after the first 200."""
    command = [sys.executable, "-c", CHURN, how]
    full = os.environ | environment
    ran = subprocess.run(command, env=full, capture_output=True, text=True, check=True)
    return int(ran.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_memory_of_large_messages_is_kept_unless_the_environment_says_otherwise() -> None:
    """Without it each page is taken from the kernel again; a chosen setting stays as it is."""
    left = page_faults("leave")
    assert page_faults("keep") < left / 10
    assert page_faults("keep", MALLOC_TOP_PAD_="0") > left / 2
