"""PURE: which differences between two configurations forbid resuming one's checkpoint with the other."""

from typing import Any

from adapter_api.training import TrainingConfig

FREE_TO_CHANGE: tuple[tuple[str, ...], ...] = (
    ("checkpoint",),
    ("logging",),
    ("sampling",),
    ("evaluation",),
    ("optimization", "num_train_epochs"),
    ("optimization", "max_train_steps"),
    # The order of samples depends on how many were seen, not on how they were grouped, so a run may be regrouped.
    ("optimization", "train_batch_size"),
    ("optimization", "gradient_accumulation_steps"),
    ("optimization", "parallelism"),
    ("data", "params", "data_root_path"),
    ("data", "params", "num_workers"),
    ("data", "params", "cache"),
    ("data", "params", "verify"),
    ("model", "params", "unet_config", "gradient_checkpointing"),
    ("model", "params", "unet_config", "compile"),
)
"""Fields that may differ: they change how long, how grouped and how observed a run is, not what it computes."""

_BATCH_SIZE = ("optimization", "train_batch_size")


def differences(saved: TrainingConfig, given: TrainingConfig) -> list[str]:
    """One line for each field that matters to the result and differs: its path, the saved value, the given one."""
    found: list[str] = []
    # Buckets are dealt out in batches, so there the order does depend on their size.
    free = set(FREE_TO_CHANGE) - ({_BATCH_SIZE} if saved.data.params.aspect_buckets is not None else set())
    _compare(saved.model_dump(mode="json"), given.model_dump(mode="json"), (), free, found)
    return found


def _compare(saved: Any, given: Any, path: tuple[str, ...], free: set[tuple[str, ...]], found: list[str]) -> None:
    if path in free or saved == given:
        return
    if isinstance(saved, dict) and isinstance(given, dict):
        for key in sorted({*saved, *given}):
            _compare(saved.get(key), given.get(key), (*path, key), free, found)
        return
    found.append(f"{'.'.join(path)}: the checkpoint has {_short(saved)}, this run has {_short(given)}")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
