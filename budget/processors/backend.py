"""Where the table's arrays live: with NumPy on the host, or with torch on a device.

Both follow the array API standard (https://data-apis.org/array-api), so that
the table is written once. On the host NumPy costs a third of what torch does:
the arrays are small, and what counts is the time to begin an operation.
"""

from collections.abc import Sequence
from typing import Any

import array_api_compat.numpy
import array_api_compat.torch
import numpy as np
import torch
from vllm.utils.torch_utils import async_tensor_h2d

Array = Any


class ArrayBackend:
    """Makes arrays in one place.

    Attributes:
        xp: the functions of the array API standard.
    """

    def __init__(self, device: torch.device | None) -> None:
        """On the host, with NumPy, if `device` is None."""
        self._device = device
        self.xp: Any = array_api_compat.numpy if device is None else array_api_compat.torch

    def zeros(self, shape: tuple[int, ...], dtype: Any = None) -> Array:
        """Zeros, int64 unless told."""
        return self.xp.zeros(shape, dtype=dtype or self.xp.int64, device=self._device or "cpu")

    def bring(self, numbers: Sequence[int] | np.ndarray) -> Array:
        """Numbers from the host, as int64; the device is not waited for."""
        return self.move(np.array(numbers, dtype=np.int64))

    def move(self, column: np.ndarray) -> Array:
        """An array on the host, here; the device is not waited for."""
        return column if self._device is None else async_tensor_h2d(column, device=self._device)

    def grid(self, logits: torch.Tensor) -> Array:
        """The logits themselves, as an array to write into."""
        return logits.numpy() if self._device is None else logits

    def take(self, column: Array, at: Array) -> Array:
        """The elements of a one-dimensional array at some indices, [n] int64."""
        return column.take(at) if self._device is None else self.xp.take(column, at, axis=0)

    def choose(self, condition: Array, one: Array, other: Array) -> Array:
        """`one` in the rows where `condition` ([rows] bool) holds, `other` elsewhere.

        `one` is a fresh array of two dimensions, and not to be used again.
        """
        if self._device is not None:
            return self.xp.where(condition[:, None], one, other)
        rows = np.flatnonzero(~condition)
        one[rows] = other[rows]
        return one
