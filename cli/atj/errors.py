"""How a command ends other than well: one readable message and an exit code."""

from adapter_api.progress import ExitCode


class CommandError(Exception):
    """A message for the user and the exit code that goes with it.

    2 stands for what the user has to change, 1 for what failed, 130 for an interruption.
    """

    def __init__(self, message: str, exit_code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def refusal(message: str) -> CommandError:
    """What the user has to change before trying again: exit code 2."""
    return CommandError(message, ExitCode.INVALID)
