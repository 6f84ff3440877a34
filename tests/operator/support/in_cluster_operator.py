"""The operator with the credentials of a pod, which lie where TOKEN_FILE and CA_FILE say instead of below /var/run/secrets."""

import datetime as dt
import os
import sys
from typing import Any

from kubernetes.aio.config import incluster_config

from adapter_operator import __main__ as program

TOKEN_READ = "reads its token"
"""What it says in its log whenever it has done that."""


class HastyLoader(incluster_config.InClusterConfigLoader):
    """Reads the token anew each second, instead of each minute."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)  # type: ignore[no-untyped-call]
        self._token_refresh_period = dt.timedelta(seconds=1)

    def _read_token_file(self) -> None:
        super()._read_token_file()  # type: ignore[no-untyped-call]
        print(TOKEN_READ, file=sys.stderr, flush=True)


def main() -> int:
    """Runs the program as in a pod."""
    vars(incluster_config).update(
        SERVICE_TOKEN_FILENAME=os.environ["TOKEN_FILE"], SERVICE_CERT_FILENAME=os.environ["CA_FILE"],
        InClusterConfigLoader=HastyLoader,
    )  # fmt: skip
    return program.main()


if __name__ == "__main__":
    sys.exit(main())
