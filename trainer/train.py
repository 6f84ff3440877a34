"""The entry point of `accelerate launch trainer/train.py`; works from a clone, installed or not."""

import sys
from pathlib import Path

try:
    from adapter_trainer.train import main
except ModuleNotFoundError:
    sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent / "api")]
    from adapter_trainer.train import main

if __name__ == "__main__":
    sys.exit(main())
