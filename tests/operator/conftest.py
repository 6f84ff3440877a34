"""The plane that the operator's processes run on."""

from tests.operator.support.planes import plane

__all__ = ["plane"]
