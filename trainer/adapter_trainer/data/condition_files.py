"""Where a file is that a condition to be drawn names; without torch, so that checking a configuration may ask too."""

from pathlib import Path

from adapter_api.training import TrainingConfig


def file_of(config: TrainingConfig, name: str) -> Path:
    """The file that a condition names: of the data, as pairs files name theirs, or else from the working directory."""
    inside = Path(config.data.params.data_root_path) / name
    return inside if inside.is_file() else Path(name)
