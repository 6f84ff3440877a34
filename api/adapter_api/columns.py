"""PURE: which data columns a configuration has, and which of them feeds which module."""

from adapter_api.conditions import Conditioned, ModulePath
from adapter_api.data import Column, ColumnKind
from adapter_api.sections import TrainingSections

BUILT_IN = ("image", "caption")
"""Every sample has these two; `image` can also be an adapter's reference."""

ADAPTER_KINDS: tuple[ColumnKind, ...] = ("reference", "embedding", "label", "vector")
"""Kinds of column that can feed an adapter."""


def columns_of(config: TrainingSections) -> tuple[Column, ...]:
    """The declared columns; without a declaration, those that the token conditioners need, in their order."""
    if config.data.params.columns is not None:
        return config.data.params.columns
    tokens = config.model.params.token_conditioners
    feeds = tokens.feeds()
    return tuple(
        Column(name=conditioner.column or feeds[name].column, kind=feeds[name].kinds[0])
        for name, conditioner in tokens.present.items()
    )


def fitting_kinds(config: TrainingSections, path: ModulePath) -> tuple[ColumnKind, ...]:
    """Kinds of column that can feed a module."""
    return ADAPTER_KINDS if path.is_adapter else config.model.params.token_conditioners.feeds()[path.name].kinds


def column_of(config: TrainingSections, path: ModulePath, module: Conditioned) -> Column | None:
    """The column that feeds a module: the one it names, else the first of a fitting kind.

    An adapter without a column of its own takes the sample's own image as reference, as IP-Adapter's training does.
    None when the named column does not exist, or nothing fits.
    """
    columns = columns_of(config)
    if module.column is not None:
        if path.is_adapter and module.column == "image":
            return Column(name="image", kind="reference")
        return next((column for column in columns if column.name == module.column), None)
    if path.is_adapter:
        references = (column for column in columns if column.kind == "reference")
        return next(references, Column(name="image", kind="reference"))
    return next((column for column in columns if column.kind in fitting_kinds(config, path)), None)


def read_by_model(config: TrainingSections) -> tuple[str, ...]:
    """What a model can be given: the columns that feed a part of it, and `caption` where there are text encoders."""
    params = config.model.params
    has_text = bool(params.text_config.encoders) or params.pretrained_model_name_or_path is not None
    fed = (column_of(config, path, module) for path, module in config.model.conditioned.items())
    return tuple(dict.fromkeys([*(["caption"] if has_text else []), *(column.name for column in fed if column)]))
