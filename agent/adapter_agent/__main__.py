"""`python -m adapter_agent restore|sync|train`: runs one command and turns its end into an exit code."""

import logging
import sys

from adapter_agent import options
from adapter_agent.errors import StorageError
from adapter_api.progress import ExitCode


def main() -> int:
    """The exit code of the command in `sys.argv`; every failure is one readable line."""
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s adapter_agent: %(message)s"
    )
    logging.getLogger("botocore").setLevel(logging.WARNING)
    chosen = options.parse(sys.argv[1:])
    try:
        if isinstance(chosen, options.RestoreOptions):
            from adapter_agent.commands import restore  # each command does without the libraries of the others

            restore.prepare(chosen)
            return ExitCode.COMPLETE
        if isinstance(chosen, options.TrainOptions):
            from adapter_agent.commands import train

            return train.train(chosen)
        from adapter_agent import priority
        from adapter_agent.commands import sync

        priority.give_way()
        return sync.sync(chosen)
    except StorageError as error:
        print(f"adapter_agent: error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
