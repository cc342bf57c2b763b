"""``protoc-gen-bascule``: typed stubs and service bases for gRPC services, as a plugin of protoc.

For each service ``X`` of the given files, the generated module holds a :class:`bascule.rpc.Method` constant for each
method, ``XStub`` to call it and ``XBase`` to serve it. Methods are named in snake case. Where a name is a keyword or
already taken, it gets an underscore at its end. Comments of the proto file become docstrings; what is marked
deprecated there warns its callers.

Options (``--bascule_opt=NAME=VALUE``, separated by commas or repeated):

``messages=google`` (default)
    The messages are classes of google's protobuf library (``--python_out``, with ``--pyi_out`` for types). The services
    of ``foo.proto`` go to ``foo_bascule.py`` beside ``foo_pb2.py``.
``messages=betterproto2``
    The messages are classes of betterproto2's compiler (``--python_betterproto2_out`` into the same folder). The
    services of a protobuf package go to ``services.py`` inside the package's folder.
``module=NAME``
    With betterproto2: ``NAME.py`` instead of ``services.py``.
``imports=PREFIX:PACKAGE``
    With google, repeatable: the modules of proto files whose path begins with PREFIX are found in the Python package
    PACKAGE. ``imports=shop/:acme.generated.shop`` imports ``shop/item.proto`` as ``acme.generated.shop.item_pb2``.
    Without it, modules are imported by their path, as in protoc's own output.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Final

from google.protobuf.compiler.plugin_pb2 import CodeGeneratorRequest, CodeGeneratorResponse
from google.protobuf.descriptor_pb2 import EDITION_2024, EDITION_PROTO2

from bascule.cli._protoc_layout import Betterproto2Layout, GoogleLayout
from bascule.cli._protoc_model import GenerationError, Index, Layout, build_module
from bascule.cli._protoc_names import is_name
from bascule.cli._protoc_render import render

_FEATURES: Final = (
    CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL | CodeGeneratorResponse.FEATURE_SUPPORTS_EDITIONS
)


@dataclass(frozen=True)
class Options:
    """What the user asked for."""

    messages: str
    module: str
    imports: dict[str, str]

    @classmethod
    def parse(cls, parameter: str) -> Options:
        """Read the text that protoc passes on.

        :raises GenerationError: if an option is unknown or its value makes no sense
        """
        single = {"messages": "google", "module": "services"}
        imports: dict[str, str] = {}
        for option in filter(None, parameter.split(",")):
            name, _, value = option.partition("=")
            if name == "imports":
                prefix, colon, package = value.rpartition(":")
                if not colon or not all(map(is_name, package.split("."))):
                    msg = f"option {option!r}: give imports=PREFIX:PACKAGE, where PACKAGE is a Python package"
                    raise GenerationError(msg)
                imports[prefix] = package
            elif name in single:
                single[name] = value
            else:
                msg = f"option {option!r} is unknown: there are messages, module and imports"
                raise GenerationError(msg)
        if single["messages"] not in {"google", "betterproto2"}:
            msg = f"option messages={single['messages']!r}: give google or betterproto2"
            raise GenerationError(msg)
        if not is_name(single["module"]):
            msg = f"option module={single['module']!r} is no name of a Python module"
            raise GenerationError(msg)
        return cls(single["messages"], single["module"], imports)


def generate(request: CodeGeneratorRequest) -> CodeGeneratorResponse:
    """Answer protoc's request: generated files, or an error for it to print."""
    response = CodeGeneratorResponse(
        supported_features=_FEATURES, minimum_edition=EDITION_PROTO2, maximum_edition=EDITION_2024
    )
    try:
        options = Options.parse(request.parameter)
        layout: Layout
        if options.messages == "google":
            layout = GoogleLayout(options.imports)
        else:
            layout = Betterproto2Layout(
                options.module, {file.package for file in request.proto_file}
            )
        index = Index(request.proto_file)
        wanted = set(request.file_to_generate)
        files = [file for file in request.proto_file if file.name in wanted]
        for path, sources in layout.modules(files):
            content = render(build_module(path, sources, index, layout))
            response.file.append(CodeGeneratorResponse.File(name=path, content=content))
    except GenerationError as error:
        del response.file[:]
        response.error = str(error)
    return response


def main() -> None:
    """Serve protoc: a request on standard input, the response on standard output."""
    request = CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
    sys.stdout.buffer.write(generate(request).SerializeToString())


if __name__ == "__main__":
    main()
