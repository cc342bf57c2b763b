"""The command line: arguments and output, nothing else."""

__all__ = ["main"]


def main() -> None:
    """Run the ``bascule`` command."""
    # The protoc plugin lives in this package and must start fast.
    from bascule.cli._main import app

    app(prog_name="bascule")
