#!/usr/bin/env python3
"""Make the passwords that compose.yaml mounts, where there are none yet, and the URLs that hold them.

What is there stays: a database knows its password from its first start. A container sees the files that it is given
and no others; as its user is not yours, it must be able to read these, so they are kept from this machine's
other users by their folder, which only you may enter.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import secrets
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent

#: Each is 32 random bytes in hexadecimal: nothing in it needs quoting in a URL, in SQL or in a shell.
PASSWORDS = (
    "user_password",
    "order_password",
    "payment_password",
    "product_password",
    "redis_password",
    "mysql_users_root_password",
    "mysql_orders_root_password",
    "mongodb_root_password",
    "grafana_password",
)


def main() -> int:
    """Make what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=HERE / "secrets")
    folder = parser.parse_args().folder
    try:
        make(folder)
    except OSError as error:
        sys.stderr.write(f"make_secrets.py: {error}\n")
        return 1
    sys.stdout.write(f"The secrets are in {folder}\n")
    return 0


def make(folder: Path) -> None:
    """Make what is missing in a folder that nobody else may enter.

    :raises OSError: if it cannot be written
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    passwords = {}
    for name in PASSWORDS:
        if not (folder / name).exists():
            _write(folder / name, secrets.token_hex(32))
        passwords[name] = (folder / name).read_text().strip()
    for name, text in derived(passwords).items():
        _write(folder / name, text)


def derived(passwords: dict[str, str]) -> dict[str, str]:
    """Give the files that hold a password among other things."""
    redis = passwords["redis_password"]
    digest = hashlib.sha256(redis.encode()).hexdigest()
    users, orders = "mysql-users:3306", "mysql-orders:3306"
    return {
        "user_url": f"mysql://user:{passwords['user_password']}@{users}/user",
        "order_url": f"mysql://order:{passwords['order_password']}@{orders}/order",
        "payment_url": f"mysql://payment:{passwords['payment_password']}@{orders}/payment",
        "product_url": f"mongodb://product:{passwords['product_password']}@mongodb:27017/product",
        "redis_url": f"redis://shop:{redis}@redis:6379/0",
        # Whoever has no password may ask whether it lives.
        "redis_users": "user default on nopass resetkeys resetchannels -@all +ping\n"
        f"user shop on #{digest} ~* &* +@all -@admin -@dangerous",
    }


def _write(path: Path, text: str) -> None:
    """Write the whole file or nothing."""
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444)
    with os.fdopen(handle, "w") as file:
        os.fchmod(handle, 0o444)
        file.write(text + "\n")
    fresh.replace(path)


if __name__ == "__main__":
    sys.exit(main())
