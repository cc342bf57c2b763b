"""The names of a new project, and what stands for them in its templates."""

from __future__ import annotations

import keyword
import re
import sys
from dataclasses import dataclass

from bascule.errors import ConfigurationError

__all__ = ["ProjectName"]

#: Lines of the templates fit into 100 columns up to here, so that a formatter leaves them alone.
LONGEST = 32

_NAME = re.compile("[a-z][a-z0-9]*([-_][a-z0-9]+)*")

#: What a package at the top of a project would hide, or what the project has itself.
_TAKEN = frozenset(
    [
        "bascule",
        "bascule_shop",
        "build",
        "deploy",
        "dist",
        "google",
        "grpc",
        "protos",
        "tests",
        "wheels",
    ]
)


@dataclass(frozen=True, slots=True)
class ProjectName:
    """A project's name in the forms that its files need.

    :ivar package: ``my_shop``
    """

    package: str

    @classmethod
    def parse(cls, text: str) -> ProjectName:
        """Read what a user typed.

        :raises ConfigurationError: if it can be no name of a Python package and of a protobuf package
        """
        package = text.replace("-", "_")
        if _NAME.fullmatch(text) is None or len(text) > LONGEST:
            message = (
                f"name {text!r}: use small letters and digits, with single '-' or '_' between them, a letter "
                f"first, {LONGEST} characters at most: my-shop"
            )
            raise ConfigurationError(message)
        taken = keyword.iskeyword(package) or keyword.issoftkeyword(package)
        if taken or package in _TAKEN or package in sys.stdlib_module_names:
            message = f"name {text!r}: Python or the project has it already: choose another one"
            raise ConfigurationError(message)
        return cls(package)

    @property
    def dashed(self) -> str:
        """``my-shop``"""
        return self.package.replace("_", "-")

    @property
    def title(self) -> str:
        """``MyShop``"""
        return "".join(part.capitalize() for part in self.package.split("_"))

    def fill(self, text: str) -> str:
        """Put the names into a template."""
        return (
            text.replace("bascule_name", self.package)
            .replace("bascule-name", self.dashed)
            .replace("BasculeName", self.title)
            .replace("BASCULE_NAME", self.package.upper())
        )
