"""Whole models of fake tensors, which have shapes and types and no content: the real SDXL in seconds and without memory."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

_INITIALIZERS = tuple(name for name in vars(nn.init) if name.endswith("_") and not name.startswith("_"))


@contextmanager
def fake_tensors() -> Iterator[None]:
    """What is built within the context is fake."""
    # torch converts modules of fake tensors by swapping them, and then refuses to, as something refers to each weakly.
    before = nn.Module._apply  # noqa: SLF001
    initializers = {name: getattr(nn.init, name) for name in _INITIALIZERS}
    nn.Module._apply = _apply  # type: ignore[method-assign]  # noqa: SLF001
    for name in _INITIALIZERS:
        setattr(nn.init, name, _leave)
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            yield
    finally:
        nn.Module._apply = before  # type: ignore[method-assign]  # noqa: SLF001
        for name, initializer in initializers.items():
            setattr(nn.init, name, initializer)


def _leave(tensor: Tensor, *_: object, **__: object) -> Tensor:
    """Give a tensor back as it is: what has no content needs no first value, and SDXL has thousands to draw."""
    return tensor


def _apply(module: nn.Module, function: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:  # noqa: FBT001, FBT002
    """`nn.Module._apply` that puts new parameters where the old ones were; `Module.to` and its like end in it."""
    for child in module.children() if recurse else ():
        child._apply(function)  # noqa: SLF001
    for name, parameter in module.named_parameters(recurse=False):
        with torch.no_grad():
            converted = function(parameter)
        if converted is not parameter:
            setattr(module, name, nn.Parameter(converted, requires_grad=parameter.requires_grad))
    for name, buffer in module.named_buffers(recurse=False):
        setattr(module, name, function(buffer))
    return module
