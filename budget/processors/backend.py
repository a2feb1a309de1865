"""Array backends of the table: NumPy on the host, or torch on a device.

Both follow the array API standard (https://data-apis.org/array-api), so that
the table is written once. On the host NumPy takes a third of torch's time: the
arrays are small, so the overhead per operation dominates.
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
    """Creates and combines arrays on the host or on one device.

    Attributes:
        xp: the namespace of the array API standard.
    """

    def __init__(self, device: torch.device | None) -> None:
        """Create a backend.

        Args:
            device: the device, with torch; None means the host, with NumPy.
        """
        self._device = device
        self.xp: Any = array_api_compat.numpy if device is None else array_api_compat.torch

    @property
    def on_host(self) -> bool:
        """Whether arrays are on the host, where their values can be looked at."""
        return self._device is None

    def zeros(self, shape: tuple[int, ...], dtype: Any = None) -> Array:
        """Return zeros of this shape, int64 by default."""
        return self.xp.zeros(shape, dtype=dtype or self.xp.int64, device=self._device or "cpu")

    def as_int64(self, numbers: Sequence[int] | np.ndarray) -> Array:
        """Return numbers as an int64 array, without waiting for the device."""
        return self.to_device(np.array(numbers, dtype=np.int64))

    def to_device(self, array: np.ndarray) -> Array:
        """Copy an array from the host, if necessary, without waiting for the device."""
        return array if self._device is None else async_tensor_h2d(array, device=self._device)

    def as_array(self, logits: torch.Tensor) -> Array:
        """Return the logits as an array that shares their memory."""
        return logits.numpy() if self._device is None else logits

    def take(self, array: Array, indices: Array) -> Array:
        """Return the elements of a one-dimensional array at indices of shape [n], int64."""
        if self._device is None:
            return array.take(indices)
        return self.xp.take(array, indices, axis=0)

    def where(self, condition: Array, one: Array, other: Array) -> Array:
        """Select rows of `one` where `condition` holds, else of `other`.

        Args:
            condition: [rows] bool.
            one: [rows, columns]; may be overwritten, so it must not be used again.
            other: [rows, columns].

        Returns:
            [rows, columns].
        """
        if self._device is not None:
            return self.xp.where(condition[:, None], one, other)
        rows = np.flatnonzero(~condition)
        one[rows] = other[rows]
        return one
