"""The attempt log: which tokens replaced an attempt to close the thinking, kept on the device."""

from collections import OrderedDict

import torch
from vllm.utils.torch_utils import async_tensor_h2d

MAX_RECORDS = 4096
"""Maximum number of saved records of requests that left the batch and were not collected."""


class AttemptLog:
    """The attempts of the requests in the batch, and of some that left it.

    A [slots, length] bool tensor on the device has one element per slot and token
    position, since any token can replace an attempt.
    """

    def __init__(self, slots: int, length: int, device: torch.device) -> None:
        """Create an empty log.

        Args:
            slots: the maximum number of requests in the batch.
            length: the maximum number of tokens per request.
            device: where the log is kept.
        """
        self._device = device
        self._attempts = torch.zeros(slots, length, dtype=torch.bool, device=device)
        self._copying: dict[str, torch.Tensor] = {}
        self._saved: OrderedDict[str, list[int]] = OrderedDict()

    def load(self, slot: int, positions: list[int]) -> None:
        """Reset a slot to the attempts at these positions."""
        self._attempts[slot] = False
        if positions:
            index = async_tensor_h2d(positions, device=self._device, dtype=torch.int64)
            self._attempts[slot].index_fill_(0, index, True)

    def record(self, slots: torch.Tensor, positions: torch.Tensor, attempted: torch.Tensor) -> None:
        """Record, for one token in each of some slots, whether it replaced an attempt.

        Args:
            slots: [n] int64.
            positions: [n] int64, the token's position.
            attempted: [n] bool.
        """
        self._attempts[slots, positions] = attempted

    def read(self, slot: int) -> list[int]:
        """Return the positions of a slot's attempts. Waits for the device."""
        return _positions(self._attempts[slot])

    def save(self, slot: int, key: str) -> None:
        """Save a slot's attempts under its request's key, before the slot is reused."""
        row = self._attempts[slot].clone()
        self._copying[key] = row.to("cpu", non_blocking=True)
        if len(self._copying) > len(self._attempts):
            self._finish_copies()

    def pop(self, key: str) -> list[int]:
        """Remove and return saved attempts; empty if there are none. Waits for the device."""
        self._finish_copies()
        return self._saved.pop(key, [])

    def peek(self, key: str) -> list[int]:
        """Return saved attempts; empty if there are none. Waits for the device."""
        self._finish_copies()
        return self._saved.get(key, [])

    def _finish_copies(self) -> None:
        """Wait for the rows that are being copied to the host."""
        if self._device.type != "cpu":
            torch.accelerator.synchronize(self._device)
        for key, row in self._copying.items():
            self._saved[key] = _positions(row)
        self._copying.clear()
        while len(self._saved) > MAX_RECORDS:
            self._saved.popitem(last=False)


def _positions(row: torch.Tensor) -> list[int]:
    positions: list[int] = row.nonzero()[:, 0].tolist()
    return positions
