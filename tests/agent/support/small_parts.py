"""`python -m adapter_agent` with parts so small that a test's files go up in several."""

import sys

from adapter_agent.__main__ import main
from adapter_agent.storage import multipart

multipart.SINGLE_PUT_BYTES = multipart.MIN_PART_BYTES = 5 * 2**20

if __name__ == "__main__":
    sys.exit(main())
