"""PURE: how long a run is, and where its learning-rate schedule stands, whatever number of processes takes its steps.

With num_train_epochs both follow the samples that steps have learned from, so that a run which goes on with more processes,
or other batches, reads every sample as often as was asked for. With max_train_steps both follow steps.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Length:
    """Of a whole run, from its first start on."""

    steps: int | None
    """max_train_steps; None where epochs count."""
    samples: int
    """Places of all epochs; of use where epochs count."""
    unit: int
    """Samples of a step as the run began: the schedule's steps, its warmup's too, stay of this size."""

    @property
    def span(self) -> int:
        """Steps of the schedule."""
        return self.steps if self.steps is not None else math.ceil(self.samples / self.unit)

    def total_steps(self, step: int, learned: int, batch: int) -> int:
        """Steps of the whole run, if the rest of them are of `batch` samples, `step` steps and `learned` samples after its begin."""
        if self.steps is not None:
            return self.steps
        return step + math.ceil(max(0, self.samples - learned) / batch)

    def position(self, step: int, learned: int) -> float:
        """Where the schedule stands, in its steps."""
        if self.steps is not None:
            return step
        whole, rest = divmod(learned, self.unit)
        return whole if rest == 0 else learned / self.unit
