"""The operator, which tries again after hundredths of a second where others wait for up to half a minute."""

import sys

from adapter_operator import __main__ as program
from adapter_operator.observe import watch


def main() -> int:
    """Runs the program with short pauses."""
    vars(watch).update(FIRST_PAUSE_SECONDS=0.02, LONGEST_PAUSE_SECONDS=0.02)
    return program.main()


if __name__ == "__main__":
    sys.exit(main())
