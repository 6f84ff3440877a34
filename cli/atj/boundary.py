"""The boundary at which errors become messages and exit codes."""

import traceback

from adapter_api.document import InvalidDocument
from adapter_api.progress import ExitCode
from atj.extras import remedy
from atj.terminal import say_error


def explain(error: Exception, *, debug: bool = False) -> int:
    """Prints what went wrong on standard error; returns the exit code. Errors of ours carry theirs."""
    if debug:
        traceback.print_exception(error)
    if isinstance(error, InvalidDocument):
        for fault in error.faults:
            say_error(str(fault), "red")
        return ExitCode.INVALID
    code = getattr(error, "exit_code", None)
    if isinstance(code, ExitCode):
        say_error(f"error: {error}", "red")
        return code
    if isinstance(error, ModuleNotFoundError) and (told := remedy(error)) is not None:
        say_error(f"error: {told}", "red")
        return ExitCode.INVALID
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename else ""
        say_error(f"error: {place}{error.strerror}", "red")
    else:
        say_error(f"error: {type(error).__name__}: {error}", "red")
    if not debug:
        say_error("This is not a fault that we foresaw; --debug shows where it arose.", dim=True)
    return ExitCode.FAILED
