"""PURE: what to do about a folder of training data that is not there."""

from pathlib import PurePath

from adapter_api.data import DataParams

EXAMPLES = {"data/digits": "make example-data", "demo-output/data": "make demo"}
"""Folders that configs/ train on -> what writes them, in the folder of this project's source."""


def remedy(folder: str) -> str:
    """Of a folder that somebody has named."""
    for example, command in EXAMPLES.items():
        if PurePath(folder).parts[-2:] == PurePath(example).parts:
            return f"`{command}` writes it"
    return "correct the path, which is absolute or from the working directory"


def remedy_of(params: DataParams, *, table_is_here: bool, other: str = "") -> str:
    """Of data_root_path, in a configuration.

    Args:
        params: the data's.
        table_is_here: whether pairs_file_path is in the working directory.
        other: what else says where the data are.
    """
    if params.data_root_path != DataParams().data_root_path:
        return remedy(params.data_root_path)
    told = f"it is the default, where pods have their data; set data_root_path{other} to the folder that"
    if table_is_here:
        return f"{told} {params.pairs_file_path} is in: `.`, the working directory"
    return f"{told} holds {params.pairs_file_path}"
