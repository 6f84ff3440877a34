"""Entry point of `atj`, `kubectl-atj` and `python -m atj`: a package that is missing is told in one line, whichever it is."""

import sys

from atj.extras import remedy


def run() -> None:
    """Runs the command in `sys.argv` and ends the process with its exit code."""
    try:
        from atj.main import run as command  # here, so that what it imports may be missing

        command()
    except ModuleNotFoundError as error:
        if (told := remedy(error)) is None:
            raise
        print(f"error: {told}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    run()
