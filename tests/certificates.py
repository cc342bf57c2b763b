"""Certificates of an authority that only tests trust."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True)
class Certificates:
    """PEM files: the authority's, and those of ``localhost`` and 127.0.0.1, which is also somebody."""

    ca: Path
    certificate: Path
    key: Path


def issue(folder: Path) -> Certificates:
    """Make an authority and have it issue, in ``folder``."""
    ca = trustme.CA()
    issued = ca.issue_cert("localhost", "127.0.0.1", common_name="somebody")
    files = Certificates(folder / "ca.pem", folder / "certificate.pem", folder / "key.pem")
    ca.cert_pem.write_to_path(str(files.ca))
    issued.private_key_pem.write_to_path(str(files.key))
    for pem in issued.cert_chain_pems:
        pem.write_to_path(str(files.certificate), append=True)
    return files
