"""Figures in the units that a reader thinks in."""

_STEPS = {
    "s": (("s", 1.0), ("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9)),
    "B": (("GiB", 2.0**30), ("MiB", 2.0**20), ("KiB", 2.0**10), ("B", 1.0)),
    "B/s": (("GiB/s", 2.0**30), ("MiB/s", 2.0**20), ("KiB/s", 2.0**10), ("B/s", 1.0)),
}


def readable(value: float, unit: str) -> str:
    """Answer with a value of a few digits and its unit."""
    steps = _STEPS.get(unit)
    if steps is None:
        return f"{value:,.0f}" if unit == "1/s" else f"{value:,.3g} {unit}"
    name, size = next((step for step in steps if abs(value) >= step[1]), steps[-1])
    return f"{value / size:.3g} {name}"
