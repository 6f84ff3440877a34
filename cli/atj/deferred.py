"""A group whose commands are imported when they are invoked: their names and summaries stand in a table."""

import gc
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any, ClassVar, Literal

import typer
from typer.core import TyperCommand, TyperGroup

MARKUP: Literal["markdown"] = "markdown"
"""How help texts are written."""


class _PlainTypes:
    """Shows what an option takes by its name rather than by Python's type, and nothing beside one that takes no value."""

    def get_params(self, ctx: Any) -> list[Any]:
        """The command's parameters, `--help` among them."""
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for each in params:
            is_choice = getattr(getattr(each, "type_descriptor", None), "is_choice", False)
            if each.param_type_name == "option" and each.metavar is None and not is_choice:
                each.metavar = "" if each.is_flag else (each.name or "").upper()
        return params


class DeferredCommand(_PlainTypes, TyperCommand):
    """A command of ours."""


@dataclass(frozen=True)
class Entry:
    """What the help of a group shows of a command, and where the command itself is."""

    name: str
    function: str
    """module:function, as entry points of packages are written."""
    summary: str
    """The first line of the function's docstring."""
    panel: str | None = None
    """Heading that the command stands under."""

    def load(self) -> Any:
        """The command, with its parameters and its whole help."""
        module, _, function = self.function.partition(":")
        app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=MARKUP)
        app.command(self.name, cls=DeferredCommand)(getattr(_imported(module), function))
        return typer.main.get_command(app)


def _imported(name: str) -> ModuleType:
    """A module, imported without looking for garbage on the way: what modules and models are made of stays, and is much."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        return import_module(name)
    finally:
        if was_enabled:
            gc.enable()


class DeferredGroup(_PlainTypes, TyperGroup):
    """Shows the table's entries as its commands, before those that it is given, and imports the one that is invoked."""

    entries: ClassVar[tuple[Entry, ...]] = ()

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = {entry.name: _shown(entry) for entry in self.entries} | dict(self.commands)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that the arguments begin with: its name, itself, and the other arguments."""
        name, command, rest = super().resolve_command(ctx, args)
        entry = next((entry for entry in self.entries if entry.name == name), None)
        return name, command if entry is None else entry.load(), rest


def _shown(entry: Entry) -> TyperCommand:
    """As much of a command as the help of its group needs."""
    return TyperCommand(entry.name, help=entry.summary, rich_help_panel=entry.panel, rich_markup_mode=MARKUP)
