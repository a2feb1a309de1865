"""The thinking tokens that several chains share."""


class SharedBudget:
    """Divides a number of thinking tokens among chains, while they run.

    At first, all chains get equal shares. What a chain does not use goes to the others. The sum of
    all maxima, and therefore of what the chains use, never exceeds the total.

    Attributes:
        maxima: the maximum of each chain; once it has ended, what it has used.
        rest: the tokens that are in no chain's maximum.
    """

    def __init__(self, total: int, chains: int, cap: int) -> None:
        """Give each chain its share.

        Args:
            total: the tokens of all chains together.
            chains: their number.
            cap: the largest maximum of one chain.
        """
        share = min(total // chains, cap)
        self.maxima = [share] * chains
        self.rest = total - share * chains
        self._cap = cap
        self._open = {*range(chains)}

    def close(self, chain: int) -> None:
        """Grant a chain no more tokens, as it does not think any longer."""
        self._open.discard(chain)

    def lower(self, chain: int, maximum: int) -> None:
        """Take back what a chain does not use; it is granted no more.

        Args:
            chain: the chain.
            maximum: its new maximum, which the chain cannot exceed.

        Raises:
            ValueError: if that is more than its maximum so far.
        """
        if maximum > self.maxima[chain]:
            raise ValueError(f"chain {chain} has at most {self.maxima[chain]} tokens")
        self.close(chain)
        self.rest += self.maxima[chain] - maximum
        self.maxima[chain] = maximum

    def grant(self) -> dict[int, int]:
        """Divide the rest equally among the chains that may still use it.

        Returns:
            The new maxima, by chain. A chain that turns out not to use its own is `lower`ed.
        """
        granted: dict[int, int] = {}
        while growing := [chain for chain in sorted(self._open) if self._growth(chain)]:
            share = self.rest // len(growing)
            if not share:
                break
            for chain in growing:
                growth = min(share, self._growth(chain))
                self.rest -= growth
                self.maxima[chain] += growth
                granted[chain] = self.maxima[chain]
        return granted

    def _growth(self, chain: int) -> int:
        """Return by how much the maximum of a chain may still grow."""
        return self._cap - self.maxima[chain]
