"""The resident memory of a process, now and at its highest, from Linux's /proc."""

import resource
from pathlib import Path


def available() -> bool:
    """Answer whether this system tells."""
    return Path("/proc/self/clear_refs").exists()


def resident(pid: int | str = "self") -> int:
    """Answer with the bytes that a process has in memory."""
    return _status(pid, "VmRSS")


def peak(pid: int | str = "self") -> int:
    """Answer with the most bytes that a process had in memory since its peak was reset."""
    return _status(pid, "VmHWM")


def reset_peak(pid: int | str = "self") -> None:
    """Forget the peak up to now."""
    # proc(5): 5 resets the peak resident set size.
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def allow_files(count: int) -> bool:
    """Raise the limit of open files, for child processes too; False if it cannot be had."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard not in (-1, resource.RLIM_INFINITY) and hard < count:
        return False
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), hard))
    return True


def _status(pid: int | str, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    message = f"/proc/{pid}/status has no {name}: the process has ended"
    raise RuntimeError(message)
