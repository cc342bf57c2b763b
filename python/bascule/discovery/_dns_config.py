"""The service config that a service publishes in its TXT records. Source: gRFC A2."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

PREFIX = "grpc_config="


def choose_config(texts: Iterable[str], host: str, share: int) -> Any:
    """The first config that is meant for this client; None if there is none.

    :param host: this client's name
    :param share: from 0 to 99, drawn once: a choice of 10 percent is for those below 10
    :return: the config as it was read. A record that is none of gRFC A2's form comes back as its
        text, for who reads the config to say what is wrong with it
    """
    for text in texts:
        if not text.startswith(PREFIX):
            continue
        try:
            choices = json.loads(text.removeprefix(PREFIX))
        except (ValueError, RecursionError):
            return text
        if not isinstance(choices, list):
            return text
        for choice in choices:
            if not isinstance(choice, dict):
                return text
            if _is_meant(choice, host, share):
                return choice.get("serviceConfig", {})
    return None


def _is_meant(choice: dict[str, Any], host: str, share: int) -> bool:
    languages, hosts = choice.get("clientLanguage"), choice.get("clientHostname")
    percentage = choice.get("percentage")
    if isinstance(languages, list) and languages:
        named = [str(each).lower() for each in languages]
        if "python" not in named:
            return False
    if isinstance(hosts, list) and hosts and host not in hosts:
        return False
    return not isinstance(percentage, int) or share < percentage
