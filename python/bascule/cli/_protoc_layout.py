"""Where the message classes of each kind live, and how a generated module imports them."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from bascule.cli._protoc_model import GenerationError, Import, MessageType
from bascule.cli._protoc_names import Namespace, betterproto2_class, is_name
from bascule.cli._protoc_render import RUNTIME_NAMES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from google.protobuf.descriptor_pb2 import FileDescriptorProto


class GoogleLayout:
    """``protoc --python_out``: a module ``foo_pb2`` for each ``foo.proto``; the services go to ``foo_bascule``.

    :param imports: Python package for each prefix of proto paths; the longest prefix that fits wins.
        Without one, modules are imported by their path, as protoc's own output does it.
    """

    def __init__(self, imports: Mapping[str, str]) -> None:
        self._imports = sorted(imports.items(), key=lambda item: -len(item[0]))

    def modules(
        self, files: Sequence[FileDescriptorProto]
    ) -> Iterator[tuple[str, Sequence[FileDescriptorProto]]]:
        """Yield a module for each file with services."""
        for file in files:
            if file.service:
                yield _base_module(file.name).replace(".", "/") + "_bascule.py", [file]

    def references(
        self, files: Sequence[FileDescriptorProto], messages: Iterable[MessageType]
    ) -> tuple[dict[MessageType, str], tuple[Import, ...]]:
        """Refer to ``foo_pb2.Outer.Inner``."""
        aliases = Namespace()
        imports: dict[str, Import] = {}
        expressions = {}
        for message in sorted(messages, key=lambda message: (message.file.name, message.nested)):
            module = self._module(message.file.name)
            if module not in imports:
                package, _, name = module.rpartition(".")
                alias = aliases.claim(name)
                if alias != name:
                    alias = aliases.claim(module.replace(".", "_"))
                imports[module] = Import(package, name, alias)
            expressions[message] = ".".join(
                (imports[module].alias, *_checked(message.nested, message.file.name))
            )
        return expressions, tuple(imports.values())

    def _module(self, proto: str) -> str:
        for prefix, package in self._imports:
            if proto.startswith(prefix):
                rest = _base_module(proto.removeprefix(prefix).lstrip("/"))
                return f"{package}.{rest}_pb2"
        return ".".join(_checked(f"{_base_module(proto)}_pb2".split("."), proto))


class Betterproto2Layout:
    """betterproto2's compiler: a package for each protobuf package; its services go to a module inside it.

    :param module: name of that module
    :param packages: every protobuf package of the request
    """

    def __init__(self, module: str, packages: Iterable[str]) -> None:
        self._module = module
        self._packages = frozenset(packages)

    def modules(
        self, files: Sequence[FileDescriptorProto]
    ) -> Iterator[tuple[str, Sequence[FileDescriptorProto]]]:
        """Yield a module for each package with services."""
        with_services = sorted(
            (file for file in files if file.service), key=lambda file: (file.package, file.name)
        )
        for package, group in groupby(with_services, key=lambda file: file.package):
            parts = package.split(".") if package else []
            inside = ".".join((*parts, self._module))
            if any(f"{other}.".startswith(f"{inside}.") for other in self._packages):
                msg = f"the services of package {package!r} would hide package {inside!r}: set the option module=NAME"
                raise GenerationError(msg)
            yield "/".join((*parts, f"{self._module}.py")), list(group)

    def references(
        self, files: Sequence[FileDescriptorProto], messages: Iterable[MessageType]
    ) -> tuple[dict[MessageType, str], tuple[Import, ...]]:
        """Refer to ``OuterInner`` in the module's own package, to ``other_package.OuterInner`` elsewhere."""
        home = files[0].package
        classes = {
            f"{service.name}{end}"
            for file in files
            for service in file.service
            for end in ("Stub", "Base")
        }
        names = Namespace({*RUNTIME_NAMES, *classes})
        to_root = "." * (len(home.split(".")) + 1 if home else 1)
        imports: dict[tuple[str, str], Import] = {}
        expressions = {}
        for message in sorted(messages, key=lambda message: (message.file.package, message.nested)):
            package = message.file.package
            name = betterproto2_class(message.nested)
            if package in {home, ""}:
                key = (package, name)
                if key not in imports:
                    imports[key] = Import(
                        "." if package == home else to_root, name, names.claim(name)
                    )
                expressions[message] = imports[key].alias
            else:
                key = (package, "")
                if key not in imports:
                    *above, last = _checked(package.split("."), message.file.name)
                    imports[key] = Import(
                        to_root + ".".join(above), last, names.claim("_".join((*above, last)))
                    )
                expressions[message] = f"{imports[key].alias}.{name}"
        return expressions, tuple(imports.values())


def _base_module(proto: str) -> str:
    """Follow protoc's own rule for the name of a Python module."""
    return proto.removesuffix(".proto").replace("-", "_").replace("/", ".")


def _checked(names: Sequence[str], file: str) -> Sequence[str]:
    for name in names:
        if not is_name(name):
            msg = f"{file}: {name!r} cannot be written in Python source: rename it"
            raise GenerationError(msg)
    return names
