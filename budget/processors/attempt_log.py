"""Which tokens stand for an attempt to close the thinking, kept on the device."""

from collections import OrderedDict

import torch
from vllm.utils.torch_utils import async_tensor_h2d

MAX_RECORDS = 4096
"""Records kept of requests that have left the batch and were not asked for."""


class AttemptLog:
    """The records of up to `slots` requests, and of some that have left.

    One byte for each of `length` tokens that a request can have, as there can
    be an attempt at each.
    """

    def __init__(self, slots: int, length: int, device: torch.device) -> None:
        self._device = device
        self._attempts = torch.zeros(slots, length, dtype=torch.bool, device=device)
        self._leaving: dict[str, torch.Tensor] = {}
        self._parked: OrderedDict[str, list[int]] = OrderedDict()

    def load(self, slot: int, record: list[int]) -> None:
        """Begin a slot's record with these positions, whatever the slot held before."""
        self._attempts[slot] = False
        if record:
            at = async_tensor_h2d(record, device=self._device, dtype=torch.int64)
            self._attempts[slot].index_fill_(0, at, True)

    def note(self, slots: torch.Tensor, at: torch.Tensor, attempted: torch.Tensor) -> None:
        """Note of one token in each of some slots whether it stands for an attempt.

        Args:
            slots: [chosen] int64.
            at: [chosen] int64, the token's position.
            attempted: [chosen] bool.
        """
        self._attempts[slots, at] = attempted

    def read(self, slot: int) -> list[int]:
        """A slot's record: positions. This waits for the device."""
        return _positions(self._attempts[slot])

    def park(self, slot: int, key: str) -> None:
        """Keep a slot's record under its request's key: the slot is about to be reused."""
        row = self._attempts[slot].clone()
        self._leaving[key] = row.to("cpu", non_blocking=True)
        if len(self._leaving) > len(self._attempts):
            self._settle()

    def take(self, key: str) -> list[int]:
        """A parked record, which is then forgotten; empty if there is none. This waits."""
        self._settle()
        return self._parked.pop(key, [])

    def _settle(self) -> None:
        """Wait for the rows on their way to the host."""
        if self._device.type != "cpu":
            torch.accelerator.synchronize(self._device)
        for key, row in self._leaving.items():
            self._parked[key] = _positions(row)
        self._leaving.clear()
        while len(self._parked) > MAX_RECORDS:
            self._parked.popitem(last=False)


def _positions(row: torch.Tensor) -> list[int]:
    positions: list[int] = row.nonzero()[:, 0].tolist()
    return positions
