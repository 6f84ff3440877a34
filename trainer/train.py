"""The entry point of `accelerate launch trainer/train.py`; works from a clone, installed or not."""

import sys
from importlib.util import find_spec
from pathlib import Path

if find_spec("adapter_trainer") is None:
    sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent / "api")]


def run() -> int:
    """Trains; returns the exit code."""
    try:
        from adapter_trainer.train import main  # here, so that what it imports may be missing

        return main()
    except ModuleNotFoundError as error:
        print(
            f"error: the package {error.name} is missing; `pip install -r requirements.txt` brings it", file=sys.stderr
        )
        return 2


if __name__ == "__main__":
    sys.exit(run())
