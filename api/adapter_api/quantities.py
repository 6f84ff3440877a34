"""PURE: what Kubernetes asks of a container's resources, beyond the form of each value.

Source: https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/#extended-resources and
pkg/apis/core/validation of Kubernetes (ValidateContainerResourceRequirements).
"""

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal

Location = tuple[str | int, ...]
Fault = tuple[Location, str]
_STANDARD = frozenset({"cpu", "memory", "ephemeral-storage"})
_HUGE = "hugepages-"
_FACTORS = {
    "": Decimal(1), "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "k": Decimal(1000), "M": Decimal("1e6"),
    "G": Decimal("1e9"), "T": Decimal("1e12"), "P": Decimal("1e15"), "E": Decimal("1e18"),
    **{f"{letter}i": Decimal(1024) ** (power + 1) for power, letter in enumerate("KMGTPE")},
}  # fmt: skip
_PARTS = re.compile(r"(?P<digits>[0-9.]+)(?:(?P<suffix>[KMGTPE]i|[numkMGTPE])|[eE](?P<exponent>[-+]?[0-9]+))?")
_LARGEST_EXPONENT = 100
"""Beyond what any machine has; longer ones would cost time."""


def amount(quantity: str) -> Decimal:
    """The number that an accepted quantity stands for."""
    parts = _PARTS.fullmatch(quantity)
    if parts is None:
        raise ValueError(f"{quantity!r} is not a quantity")
    if parts["exponent"] is None:
        return Decimal(parts["digits"]) * _FACTORS[parts["suffix"] or ""]
    exponent = max(-_LARGEST_EXPONENT, min(int(parts["exponent"]), _LARGEST_EXPONENT))
    return Decimal(parts["digits"]).scaleb(exponent)


def resource_faults(limits: Mapping[str, str], requests: Mapping[str, str]) -> Iterator[Fault]:
    """What the API server would refuse of a container's resources, with the field to change."""
    for field, given in (("limits", limits), ("requests", requests)):
        for name, quantity in given.items():
            if "/" not in name and name not in _STANDARD and not name.startswith(_HUGE):
                message = "is not a resource that Kubernetes knows; write cpu, memory, ephemeral-storage, or a domain before it"
                yield (field, name), f"{message}, as in nvidia.com/gpu"
            elif is_extended(name) and amount(quantity) % 1:
                yield (field, name), f"{quantity}: give a whole number; devices are not shared by fractions"
    for name, quantity in requests.items():
        limit = limits.get(name)
        if limit is None and _is_reserved_whole(name):
            yield ("requests", name), f"needs the same in limits: write limits: {{{name}: {quantity}}}"
        elif limit is not None and amount(quantity) > amount(limit):
            yield ("requests", name), f"{quantity} is more than its limit {limit}; raise the limit or lower the request"
        elif limit is not None and _is_reserved_whole(name) and amount(quantity) != amount(limit):
            yield ("requests", name), f"{quantity} must be the same as its limit {limit}"
    named = {*limits, *requests}
    huge = next((name for name in limits if name.startswith(_HUGE)), None)
    if huge is not None and not named & {"cpu", "memory"}:
        yield ("limits", huge), "needs cpu or memory as well; add one of them"


def is_extended(name: str) -> bool:
    """Whether devices are counted by it: a resource outside Kubernetes' own domain."""
    domain = name.rpartition("/")[0]
    return bool(domain) and domain != "kubernetes.io" and not domain.endswith(".kubernetes.io")


def _is_reserved_whole(name: str) -> bool:
    """Whether nothing of it can be promised twice."""
    return is_extended(name) or name.startswith(_HUGE)
