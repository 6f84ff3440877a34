"""What can end a training run, each with the exit code and the reason that its outcome carries."""

from adapter_api.progress import ExitCode, Reason


class TrainingError(Exception):
    """A run that cannot go on; the message says who, what and what to do next."""

    reason: Reason = "Failed"
    exit_code: ExitCode = ExitCode.FAILED


class InvalidConfig(TrainingError):  # noqa: N818 - reads as the fact it states
    """The configuration asks for something that cannot be built."""

    reason: Reason = "InvalidConfig"
    exit_code = ExitCode.INVALID


class InvalidData(TrainingError):  # noqa: N818
    """The data has faults that its owner must mend."""

    reason: Reason = "InvalidData"
    exit_code = ExitCode.INVALID


class IncompatibleCheckpoint(TrainingError):  # noqa: N818
    """A checkpoint that this configuration must not continue."""

    reason: Reason = "IncompatibleCheckpoint"
    exit_code = ExitCode.INVALID


class NonFiniteLoss(TrainingError):  # noqa: N818
    """The loss became NaN or infinite."""

    reason: Reason = "NonFiniteLoss"


class DiskFull(TrainingError):  # noqa: N818
    """There was no room for a checkpoint."""

    reason: Reason = "DiskFull"


class DamagedCheckpoint(TrainingError):  # noqa: N818
    """A checkpoint folder that is not what was written."""


class DamagedCache(TrainingError):  # noqa: N818
    """An encoding that is not what was written; it has been removed, and a restart encodes it anew."""


class Stopped(TrainingError):  # noqa: N818
    """Asked to stop before the first step; what was prepared until then stays."""

    reason: Reason = "Stopped"
    exit_code = ExitCode.STOPPED
