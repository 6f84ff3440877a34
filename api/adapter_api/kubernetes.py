"""What Kubernetes' API uses everywhere: names, quantities, labels, and the name of a Secret."""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from adapter_api.base import ResourceModel
from adapter_api.messages import shown

_JOB_NAME = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")
_DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_QUANTITY = re.compile(r"([0-9]+|[0-9]*\.[0-9]+|[0-9]+\.)(([KMGTPE]i)|[numkMGTPE]|[eE][-+]?[0-9]+)?")
_NAME_PART = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]*)?[A-Za-z0-9]")
MAX_NAME = 52
"""A job's name becomes the prefix of <name>-<attempt>-<index>, which Kubernetes holds to 63 characters."""
DEFAULT_GRACE_SECONDS = 120
"""To save and upload when told to stop, before either has been measured."""


def _job_name(value: str) -> str:
    if len(value) > MAX_NAME or not _JOB_NAME.fullmatch(value):
        raise ValueError(
            f"{value[:64]!r} is not a job name: at most {MAX_NAME} lower-case letters, digits and dashes, "
            "starting with a letter and ending with a letter or digit"
        )
    return value


def _object_name(value: str) -> str:
    if len(value) > 253 or not all(_DNS_LABEL.fullmatch(part) for part in value.split(".")):
        raise ValueError(
            f"{value[:64]!r} is not the name of a Kubernetes object: lower-case letters, digits, dashes and dots"
        )
    return value


def label_name(value: str) -> str:
    """The value, if it can be part of a host name.

    Raises:
        ValueError: it cannot.
    """
    if len(value) > 63 or not _DNS_LABEL.fullmatch(value):
        raise ValueError(
            f"{value[:64]!r} is not a name of this kind: at most 63 lower-case letters, digits and dashes, starting and "
            "ending with a letter or digit"
        )
    return value


def _qualified_name(value: str) -> str:
    domain, slash, name = value.rpartition("/")
    is_domain = len(domain) <= 253 and all(_DNS_LABEL.fullmatch(part) for part in domain.split("."))
    if len(name) > 63 or not _NAME_PART.fullmatch(name) or (slash and not is_domain):
        raise ValueError(
            f"{value[:80]!r} is not a qualified name: at most 63 letters, digits, '-', '_' and '.', with a letter or digit at "
            "both ends, and before it perhaps a lower-case domain and a slash"
        )
    return value


def _annotation_name(value: str) -> str:
    _qualified_name(value.lower())
    return value


def _quantity(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
    if not isinstance(text, str) or len(text) > 32 or not _QUANTITY.fullmatch(text):
        raise ValueError(f"{shown(value)} is not a quantity; write for example 500m, 2 or 4Gi")
    return text


JobName = Annotated[str, AfterValidator(_job_name)]
ObjectName = Annotated[str, AfterValidator(_object_name)]
LabelName = Annotated[str, AfterValidator(label_name)]
"""Name of what becomes part of a host name, such as a namespace."""
Quantity = Annotated[
    str,
    BeforeValidator(_quantity),
    WithJsonSchema({"anyOf": [{"type": "integer"}, {"type": "string", "maxLength": 32}]}, mode="validation"),
]
"""A Kubernetes quantity; a number is taken for its text."""
ShortText = Annotated[str, Field(max_length=4096)]
QualifiedName = Annotated[str, Field(max_length=317), AfterValidator(_qualified_name)]
"""Key of a label or a taint, name of a resource: a name, or a domain and a name."""
LabelValue = Annotated[str, Field(max_length=63, pattern=r"^(([A-Za-z0-9][A-Za-z0-9_.-]*)?[A-Za-z0-9])?$")]
LabelMap = Annotated[dict[QualifiedName, LabelValue], Field(max_length=64)]
AnnotationMap = Annotated[
    dict[
        Annotated[str, Field(max_length=317), AfterValidator(_annotation_name)],
        Annotated[str, Field(max_length=32_768)],
    ],
    Field(max_length=64),
]


class SecretRef(ResourceModel):
    """A Secret in the job's own namespace."""

    name: ObjectName
    """Name of the Secret."""
