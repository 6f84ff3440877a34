"""TrainingConfig: what configs/*.yaml hold and what a job's spec.training holds.

`target:` chooses among the names listed in each field's type and nothing else; the trainer's registry maps them to
classes. Every section has defaults, which together describe SDXL base 1.0.
"""

from typing import Self

from pydantic import model_validator

from adapter_api.consistency import inconsistencies
from adapter_api.messages import refuse
from adapter_api.sections import TrainingSections


class TrainingConfig(TrainingSections):
    """Everything that a training run depends on, except where it runs."""

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        refuse("TrainingConfig", inconsistencies(self))
        return self
