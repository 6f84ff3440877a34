"""What the API server stand-in answers when it does not do what it is asked: Status objects, as Kubernetes words them."""

from typing import Any

from tests.operator.support.stand_in.resources import Resource

Plain = dict[str, Any]


class Refusal(Exception):  # noqa: N818 - it reads as the fact that it states
    """An answer other than the object that was asked for."""

    def __init__(self, code: int, reason: str, message: str, details: Plain | None = None) -> None:
        super().__init__(message)
        self.code, self.reason, self.details = code, reason, details or {}

    @property
    def status(self) -> Plain:
        """The body of the answer."""
        return {
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": str(self),
            "details": self.details, "code": self.code, **({"reason": self.reason} if self.reason else {}),
        }  # fmt: skip


def not_found(resource: Resource, name: str) -> Refusal:
    return Refusal(404, "NotFound", f'{resource.full_name} "{name}" not found', _details(resource, name))


def already_exists(resource: Resource, name: str) -> Refusal:
    return Refusal(409, "AlreadyExists", f'{resource.full_name} "{name}" already exists', _details(resource, name))


def conflict(resource: Resource, name: str, why: str) -> Refusal:
    message = f'Operation cannot be fulfilled on {resource.full_name} "{name}": {why}'
    return Refusal(409, "Conflict", message, _details(resource, name))


def invalid(resource: Resource, name: str, faults: list[str]) -> Refusal:
    message = f'{resource.kind}.{resource.group} "{name}" is invalid: {", ".join(faults)}'
    return Refusal(422, "Invalid", message, {**_details(resource, name), "kind": resource.kind})


def forbidden(resource: Resource, name: str, why: str) -> Refusal:
    return Refusal(403, "Forbidden", f'{resource.full_name} "{name}" is forbidden: {why}', _details(resource, name))


def bad_request(message: str) -> Refusal:
    return Refusal(400, "BadRequest", message)


def expired() -> Refusal:
    return Refusal(410, "Expired", "too old resource version")


def _details(resource: Resource, name: str) -> Plain:
    return {"name": name, "kind": resource.plural, **({"group": resource.group} if resource.group else {})}
