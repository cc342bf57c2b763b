"""The reference of the command line, as Markdown, from the commands themselves."""

from __future__ import annotations

import inspect
import re
from enum import Enum
from typing import TYPE_CHECKING, Any

import typer.main

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typer import Typer


def render() -> str:
    """Every command with its arguments and options."""
    from bascule.cli._main import app
    from bascule_shop.cli import app as shop

    return "\n".join([*_commands("bascule", app), *_commands("python -m bascule_shop", shop)])


def _commands(name: str, app: Typer) -> Iterator[str]:
    yield from _command(name, typer.main.get_command(app), 2)


def _command(name: str, command: Any, level: int) -> Iterator[str]:
    yield f"{'#' * level} {name}\n"
    yield _paragraphs(command.help or "") + "\n"
    inner = getattr(command, "commands", None)
    if inner is not None:
        for key, each in inner.items():
            if not each.hidden:
                yield from _command(
                    f"{name} {key}", each, level if level == 2 and _group(each) else 3
                )
        return
    shown = [each for each in command.params if not getattr(each, "hidden", False)]
    arguments = [_argument(each) for each in shown if each.param_type_name == "argument"]
    yield "```text\n" + " ".join([name, "[OPTIONS]", *arguments]) + "\n```\n"
    if shown:
        yield "| | | Default |\n|---|---|---|"
        for each in shown:
            yield f"| {_names(each)} | {_cell(getattr(each, 'help', None) or '')} | {_default(each)} |"
        yield ""


def _group(command: Any) -> bool:
    return getattr(command, "commands", None) is not None


def _argument(parameter: Any) -> str:
    name = (parameter.metavar or parameter.name).upper() + ("..." if parameter.nargs == -1 else "")
    return name if parameter.required else f"[{name}]"


def _names(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{_argument(parameter).strip('[]')}`"
    kind = "" if parameter.is_flag else f" {_kind(parameter)}"
    return ", ".join(f"`{each}{kind}`" for each in [*parameter.opts, *parameter.secondary_opts])


def _kind(parameter: Any) -> str:
    annotation = parameter.type_descriptor.annotation
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return ",".join(str(each.value) for each in annotation)
    if parameter.metavar:
        return str(parameter.metavar)
    return {"float": "NUMBER", "int": "NUMBER", "str": "TEXT"}.get(
        getattr(annotation, "__name__", ""), "TEXT"
    )


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    variable = getattr(parameter, "envvar", None)
    if variable:
        return f"of `{variable}`"
    default = parameter.default
    if not default or callable(default):
        return ""
    return f"`{getattr(default, 'value', default)}`"


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|").strip()


def _paragraphs(text: str) -> str:
    return inspect.cleandoc(text).replace("\b\n", "")
