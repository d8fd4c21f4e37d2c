"""The array library that an array is of: NumPy, or PyTorch where a user already has tensors.

The fast model needs a dozen functions that NumPy and PyTorch call by the same name, ``out=``
included, so the module itself is all the abstraction there is. PyTorch is never imported here.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Library", "to_numpy"]


def to_numpy(array: Any) -> NDArray[Any]:
    """NumPy array with what an array of either library holds."""
    detach = getattr(array, "detach", None)
    return np.asarray(array if detach is None else detach().cpu().numpy())


class Library:
    """Library, type and device of an array, and how to make more of the kind.

    Parameters
    ----------
    like
        A NumPy array or a PyTorch tensor of floats.

    Raises
    ------
    TypeError
        ``like`` is neither, or holds no floats.
    """

    def __init__(self, like: Any) -> None:
        self._like = like
        torch = sys.modules.get("torch")
        self.xp: Any  #: the module
        if isinstance(like, np.ndarray):
            self.xp = np
            self.rint = np.rint  #: rounds to the nearest integer
        elif torch is not None and isinstance(like, torch.Tensor):
            self.xp = torch
            self.rint = torch.round
        else:
            raise TypeError(f"like must be a NumPy array or a PyTorch tensor, not {like!r}")
        if "float" not in str(like.dtype):
            raise TypeError(f"like must hold floats, not dtype {like.dtype!s}")

    @property
    def dtype(self) -> Any:
        """Type of the library's own."""
        return self._like.dtype

    def empty(self, shape: tuple[int, ...]) -> Any:
        """An array of this kind with arbitrary values."""
        if self.xp is np:
            return np.empty(shape, self.dtype)
        return self._like.new_empty(shape)

    def array(self, values: ArrayLike) -> Any:
        """An array of this kind with the values given."""
        if self.xp is np:
            return np.ascontiguousarray(values, dtype=self.dtype)
        return self._like.new_tensor(np.asarray(values))

    def whole(self, array: Any) -> Any:
        """Floats cut to integers that index an array."""
        return array.astype(np.intp) if self.xp is np else array.long()

    def host(self, array: Any) -> NDArray[Any] | None:
        """The array's own memory as a NumPy array; None if it is not in this processor's reach."""
        if self.xp is np:
            return np.asarray(array)
        if array.device.type != "cpu" or str(array.dtype) not in ("torch.float32", "torch.float64"):
            return None
        return np.asarray(array.numpy())
