"""Addresses that a directory may send a client to."""

from __future__ import annotations

import ipaddress

__all__ = ["is_usable"]

# What clouds tell machines their credentials at, beside the link-local 169.254.169.254:
# AWS over IPv6, Alibaba, Azure.
_METADATA = {
    ipaddress.ip_address(each) for each in ("fd00:ec2::254", "100.100.100.200", "168.63.129.16")
}


def is_usable(text: str) -> bool:
    """Whether a service can be at this IP address.

    It cannot at addresses that are link-local, multicast or unspecified, nor at the metadata service
    of a cloud: an answer must not make a client call that.

    :raises ValueError: if it is no IP address
    """
    address = ipaddress.ip_address(text)
    mapped = getattr(address, "ipv4_mapped", None) or address
    return not (
        mapped.is_link_local or mapped.is_multicast or mapped.is_unspecified or mapped in _METADATA
    )
