"""Counts the bytes of tensors that are alive at the same time; those of fake tensors before any are there."""

import weakref
from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """As long as it is entered, counts what operators allocate: what is alive now, and the most that ever was.

    It counts whole storages, once each, so that views cost nothing; workspaces inside an operator are not seen.
    """

    def __init__(self, held: Iterable[Tensor]) -> None:
        """Tensors of `held`, such as weights, are somebody else's to count."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = 0
        self.peak = 0
        # Fake storages have no addresses; an identity is only good for as long as its storage is there.
        self._held = [tensor.untyped_storage() for tensor in held]
        self._known = {id(storage) for storage in self._held}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs the operator and looks at what it gives back."""
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._see(leaf)
        return result

    def _see(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = id(storage), storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size
