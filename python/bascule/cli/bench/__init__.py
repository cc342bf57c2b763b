"""``bascule bench``: a short measurement on the machine at hand, from nothing but the wheel."""
