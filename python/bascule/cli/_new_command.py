"""``bascule new``: a project of the user's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bascule.cli._call import Loop
from bascule.cli._ending import ending

__all__ = ["new"]

_NEXT = """
Next:
  cd {folder}
  make install test   # its own tests, on asyncio and trio
  make serve          # the service
  make gateway        # in another terminal: JSON over HTTP/2 in front of it
README.md tells the rest.
"""


def new(
    name: Annotated[
        str, typer.Argument(help="Of the project, such as my-shop; its package is my_shop.")
    ],
    *,
    directory: Annotated[
        Path | None, typer.Option("-d", "--directory", help="Where to; ./NAME if none.")
    ] = None,
    loop: Annotated[Loop, typer.Option(help="The event loop that it runs on.")] = Loop.ASYNCIO,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Write into a folder that is not empty; tells what it overwrites."
        ),
    ] = False,
) -> None:
    """Make a project: a service, a gateway, their tests, containers, alerts and CI.

    Its tests pass at once. It is made from what is installed: no network, no protoc.
    The exit code is 2 if the name cannot be used, or the folder has something already.
    """
    from bascule.cli._new_names import ProjectName
    from bascule.cli._new_project import ProjectSettings, project, write_project

    with ending("new"):
        settings = ProjectSettings(ProjectName.parse(name), loop.value)
        folder = directory or Path(name)
        made = project(settings)
        replaced = write_project(folder, made, force=force)
    for path in replaced:
        typer.echo(f"overwritten: {folder / path}")
    typer.echo(f"{len(made)} files in {folder}")
    typer.echo(_NEXT.format(folder=folder).rstrip())
