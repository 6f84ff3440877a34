"""Base models and bounded scalar types that every model of the contract is made of.

Scalars are strict: "10" is not 10, true is not 1, "no" is not false, and what a 64-bit reader could not hold is refused here rather than
overflowing later. Two bases differ only in how fields are spelled in files: training configurations are snake_case, as
diffusers' own are; Kubernetes objects are camelCase.
"""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

MAX_INT = 2**53 - 1
"""Largest integer that survives JSON readers which hold numbers as doubles."""


class ConfigModel(BaseModel):
    """A part of a training configuration: snake_case, immutable, unknown fields refused, no NaN or infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())


class ResourceModel(BaseModel):
    """A part of a Kubernetes object or of a file in object storage: camelCase in files, snake_case in Python."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
        protected_namespaces=(),
    )


def _integral_float(value: Any) -> Any:
    """JSON and YAML readers may deliver 10.0 for 10; nothing else is converted."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) <= MAX_INT else value


def _number(value: Any) -> Any:
    """An integer is a number; a boolean is not."""
    return float(value) if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MAX_INT else value


Flag = Annotated[bool, Field(strict=True)]
"""true or false. Not `no` or 1: readers of YAML disagree about what those mean."""

Count = Annotated[int, BeforeValidator(_integral_float), Field(strict=True, ge=0, le=MAX_INT)]
"""An integer of at least 0."""

PositiveCount = Annotated[int, BeforeValidator(_integral_float), Field(strict=True, ge=1, le=MAX_INT)]
"""An integer of at least 1."""

Real = Annotated[float, BeforeValidator(_number), Field(strict=True, ge=-1e30, le=1e30)]
"""A finite number that fits a 32-bit float."""

NonNegativeReal = Annotated[float, BeforeValidator(_number), Field(strict=True, ge=0, le=1e30)]
PositiveReal = Annotated[float, BeforeValidator(_number), Field(strict=True, gt=0, le=1e30)]
Fraction = Annotated[float, BeforeValidator(_number), Field(strict=True, ge=0, le=1)]
"""A number from 0 to 1, both included."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,47}")


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError(
            f"{value[:64]!r} is not a name: start with a lower-case letter, then up to 47 of a-z, 0-9 and underscore"
        )
    return value


Text = Annotated[str, Field(max_length=10_000)]
PathText = Annotated[str, Field(min_length=1, max_length=4096)]
Name = Annotated[str, AfterValidator(_name)]
"""A name that users give to a part of a model or a data column; it becomes part of file names."""

S3_SCHEME = "s3://"
_S3_URI = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(?P<prefix>[A-Za-z0-9._/=+@-]*))?")


def _s3_uri(value: str) -> str:
    matched = _S3_URI.fullmatch(value)
    prefix = (matched["prefix"] or "") if matched else ""
    parts = prefix.rstrip("/").split("/") if prefix.rstrip("/") else []
    if matched is None or ".." in matched["bucket"] or any(part in ("", ".", "..") for part in parts):
        raise ValueError(
            f"{value!r} is not an object storage address: write s3://bucket/prefix with a bucket of 3 to 63 "
            "lower-case letters, digits, single dots and dashes, and no empty, '.' or '..' part in the prefix"
        )
    return value.rstrip("/")


S3URI = Annotated[str, Field(max_length=1024), AfterValidator(_s3_uri)]
"""An object storage address s3://bucket/prefix, without a trailing slash."""


def _model_name(value: str) -> str:
    if value.startswith(S3_SCHEME):
        return _s3_uri(value)
    if "://" in value:
        raise ValueError(f"{value[:80]!r} is neither a local folder, nor a hub name, nor an address s3://bucket/prefix")
    return value


ModelName = Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_model_name)]
"""A model: a local folder, a hub name, or an address in object storage."""


def split_s3_uri(uri: str) -> tuple[str, str]:
    """Bucket and prefix (without slashes at its ends) of an address that an `S3URI` field has accepted."""
    bucket, _, prefix = uri.removeprefix(S3_SCHEME).partition("/")
    return bucket, prefix.strip("/")
