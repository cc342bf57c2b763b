"""``python -m bascule_shop``."""

from bascule_shop.cli import main

main()
