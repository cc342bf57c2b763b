"""The protoc plugin: names, layouts, refusals. What it makes of tests/protos/odd is committed in tests/generated/odd."""

from __future__ import annotations

import inspect
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any, cast

import pytest
from betterproto2_compiler.compile.naming import pythonize_class_name
from google.protobuf.compiler.plugin_pb2 import CodeGeneratorRequest, CodeGeneratorResponse
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from hypothesis import example, given
from hypothesis import strategies as st
from tests.generated.better.echo import services as echo_better
from tests.generated.odd import odd_names_bascule as odd
from tests.generated.odd.better.odd.names import services as odd_better

from bascule.cli._protoc_names import betterproto2_class, snake_case
from bascule.cli.protoc_gen import generate

BIN = Path(sys.executable).parent
ROOT = Path(__file__).parents[3]
GENERATED = [
    path
    for folder in (ROOT / "tests/generated", ROOT / "python/bascule_shop/_generated")
    for pattern in ("*_bascule.py", "services.py")
    for path in sorted(folder.rglob(pattern))
]
IDENTIFIERS = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,20}", fullmatch=True)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("GetUser", "get_user"),
        ("getUser", "get_user"),
        ("get_user", "get_user"),
        ("Get_User", "get_user"),
        ("GetHTTPInfo", "get_http_info"),
        ("HTTP", "http"),
        ("ListV2", "list_v2"),
        ("V2List", "v2_list"),
        ("__Private", "_private"),
    ],
)
def test_methods_are_named_in_snake_case(name: str, expected: str) -> None:
    assert snake_case(name) == expected


@given(IDENTIFIERS, IDENTIFIERS)
@example("Outer", "HTTPInnerV2x")
def test_betterproto2_classes_are_named_as_its_compiler_names_them(outer: str, inner: str) -> None:
    assert betterproto2_class([outer, inner]) == pythonize_class_name(f"{outer}.{inner}")


@pytest.mark.parametrize("module", [odd, odd_better])
def test_no_method_hides_another_or_a_part_of_python(module: Any) -> None:
    service = module.NamesBase()
    paths = [path.rpartition("/")[2] for path in service.__mapping__()]
    functions = dict(inspect.getmembers(module.NamesBase, inspect.isfunction))
    names = [name for name in functions if name != "__mapping__"]
    assert len(paths) == len(names) == 13
    assert {
        "import_",
        "none",
        "float_",
        "str_",
        "get_http_info",
        "list_v2",
        "list_v2_",
        "list_v2__",
    } <= {*names}
    assert module.NAMES_IMPORT.path == "/odd.names.Names/Import"
    assert module.NAMES_IMPORT_SELF.path == "/odd.names.Names_Import/Self"
    assert module.NAMES_IMPORT_SELF_.path == "/odd.names.NamesImport/Self"


@pytest.mark.parametrize("module", [odd, odd_better])
@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (
            "leading",
            "Leading,\n  indented in its second line,\n\nin two paragraphs. With a tab.\n\nTrailing too.",
        ),
        ("trailing", "Trailing only, ends with a backslash \\"),
        ("block", "A block\nof lines."),
        ("without", "Call ``/odd.names.Comments/Without``."),
        ("quoted", '"quoted"'),
        ("unicode", "Schöne Grüße ✓"),
    ],
)
def test_comments_become_docstrings(module: Any, method: str, expected: str) -> None:
    assert inspect.getdoc(getattr(module.CommentsStub, method)).strip() == expected


@pytest.mark.parametrize("module", [odd, odd_better])
def test_what_is_deprecated_warns_its_callers_only(module: Any) -> None:
    with pytest.warns(DeprecationWarning, match=r"odd\.names\.Old is deprecated"):
        module.OldStub(None)
    stub = module.AgeingStub(None)
    with pytest.warns(DeprecationWarning, match="/odd.names.Ageing/Old is deprecated"):
        stub.old(None).close()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stub.new(None).close()
        assert len(module.OldBase().__mapping__()) == 1
        module.AgeingBase().old(None).close()


def test_a_service_without_methods_has_an_empty_mapping() -> None:
    assert odd.EmptyBase().__mapping__() == {}


@pytest.mark.parametrize("path", GENERATED, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_output_is_formatted(path: Path) -> None:
    command = [BIN / "ruff", "format", "--isolated", "--check", path]
    subprocess.run(command, check=True, capture_output=True)
    subprocess.run([BIN / "ruff", "check", "--isolated", path], check=True, capture_output=True)


def test_it_runs_as_a_plugin_of_protoc(tmp_path: Path) -> None:
    (tmp_path / "one.proto").write_text(
        'syntax = "proto3"; message M { optional int32 n = 1; } service S { rpc Do(M) returns (M); }'
    )
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I.", "--bascule_out=.", "one.proto"]
    plugin = f"--plugin=protoc-gen-bascule={BIN / 'protoc-gen-bascule'}"
    subprocess.run([*command, plugin], cwd=tmp_path, check=True, capture_output=True)
    assert "class SStub:" in (tmp_path / "one_bascule.py").read_text()

    done = subprocess.run(
        [*command, plugin, "--bascule_opt=messages=avro"],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode
    assert "option messages='avro': give google or betterproto2" in done.stderr


def proto(name: str, package: str, *messages: str, service: str = "") -> FileDescriptorProto:
    file = FileDescriptorProto(name=name, package=package, syntax="proto3")
    for message in messages:
        file.message_type.add(name=message)
    if service:
        full_name = ".".join(("", *filter(None, (package, messages[0]))))
        file.service.add(name=service).method.add(
            name="Do", input_type=full_name, output_type=full_name
        )
    return file


def run(*files: FileDescriptorProto, parameter: str = "") -> CodeGeneratorResponse:
    names = [file.name for file in files]
    return generate(
        CodeGeneratorRequest(file_to_generate=names, proto_file=files, parameter=parameter)
    )


@pytest.mark.parametrize(
    ("parameter", "error"),
    [
        ("message=google", "option 'message=google' is unknown"),
        ("messages=", "option messages='': give google or betterproto2"),
        ("module=a.b", "option module='a.b' is no name of a Python module"),
        ("imports=shop", "option 'imports=shop': give imports=PREFIX:PACKAGE"),
        (
            "imports=shop/:acme.class",
            "option 'imports=shop/:acme.class': give imports=PREFIX:PACKAGE",
        ),
    ],
)
def test_a_bad_option_is_refused(parameter: str, error: str) -> None:
    response = run(proto("a.proto", "a", "M", service="S"), parameter=parameter)
    assert error in response.error
    assert not response.file


@pytest.mark.parametrize("messages", ["google", "betterproto2"])
def test_files_without_services_make_no_module(messages: str) -> None:
    assert not run(proto("a.proto", "a", "M"), parameter=f"messages={messages}").file


def test_google_modules_are_imported_by_path_or_as_mapped() -> None:
    file = proto("shop/v1/item-list.proto", "shop.v1", "Item", service="Items")
    (module,) = run(file).file
    assert module.name == "shop/v1/item_list_bascule.py"
    assert "\nfrom shop.v1 import item_list_pb2\n" in module.content
    (module,) = run(file, parameter="imports=shop/:acme.gen,imports=:other").file
    assert module.name == "shop/v1/item_list_bascule.py"
    assert "\nfrom acme.gen.v1 import item_list_pb2\n" in module.content
    (module,) = run(file, parameter="imports=:other").file
    assert "\nfrom other.shop.v1 import item_list_pb2\n" in module.content


def test_google_modules_of_one_name_get_their_whole_path_as_alias() -> None:
    first, second = (
        proto("a/types.proto", "a", "First", service="S"),
        proto("b/types.proto", "b", "Second"),
    )
    first.service[0].method[0].output_type = ".b.Second"
    (module,) = run(first, second).file
    assert "\nfrom a import types_pb2\nfrom b import types_pb2 as b_types_pb2\n" in module.content
    assert "request: types_pb2.First" in module.content
    assert "-> b_types_pb2.Second" in module.content


def test_a_top_level_google_module_is_imported_without_a_package() -> None:
    (module,) = run(proto("a.proto", "", "M", service="S")).file
    assert "\nimport a_pb2\n" in module.content
    assert '"/S/Do"' in module.content


def test_betterproto2_services_of_a_package_share_a_module() -> None:
    files = [
        proto("x/one.proto", "shop.v1", "A", service="One"),
        proto("x/two.proto", "shop.v1", "B", service="Two"),
    ]
    (module,) = run(*files, parameter="messages=betterproto2").file
    assert module.name == "shop/v1/services.py"
    assert "class OneStub:" in module.content
    assert "class TwoBase:" in module.content
    assert "\nfrom . import A, B\n" in module.content


def test_betterproto2_messages_of_other_packages_are_imported_from_the_root() -> None:
    here, there = proto("a.proto", "shop.v1", "A", service="S"), proto("b.proto", "shop.types", "B")
    here.service[0].method[0].output_type = ".shop.types.B"
    (module,) = run(here, there, parameter="messages=betterproto2").file
    assert "\nfrom ...shop import types as shop_types\n" in module.content
    assert "-> shop_types.B" in module.content


def test_a_services_module_that_would_hide_a_package_is_refused() -> None:
    files = [proto("a.proto", "shop", "A", service="S"), proto("b.proto", "shop.services.v1", "B")]
    error = run(*files, parameter="messages=betterproto2").error
    assert (
        error
        == "the services of package 'shop' would hide package 'shop.services': set the option module=NAME"
    )
    (module,) = run(*files, parameter="messages=betterproto2,module=rpc").file
    assert module.name == "shop/rpc.py"


@pytest.mark.parametrize(
    ("file", "name"),
    [
        (proto("a.proto", "a", "class", service="S"), "class"),
        (proto("lambda/a.proto", "a", "M", service="S"), "lambda"),
        (proto("1.proto", "a", "M", service="S"), "1_pb2"),
    ],
)
def test_what_python_cannot_name_is_refused(file: FileDescriptorProto, name: str) -> None:
    assert run(file).error == f"{file.name}: '{name}' cannot be written in Python source: rename it"


def test_handlers_carry_the_messages_of_their_kind() -> None:
    handlers = echo_better.EchoBase().__mapping__()
    assert [handlers[path].cardinality.name for path in handlers] == [
        "UNARY_UNARY",
        "UNARY_STREAM",
        "STREAM_UNARY",
        "STREAM_STREAM",
        "UNARY_UNARY",
    ]
    requests = {cast("type", handler.request_type).__module__ for handler in handlers.values()}
    assert requests == {"tests.generated.better.echo"}
