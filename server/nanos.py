"""Amounts of money as integers, in billionths of the currency."""

from decimal import ROUND_CEILING, Decimal

NANO = Decimal("1e-9")
"""The unit of amounts that count against limits: integers, which every database adds up exactly.
The ledger's rows have the exact cost."""


def to_nanos(money: Decimal) -> int:
    """Convert an amount of money to billionths, rounded up."""
    return int((money / NANO).to_integral_value(ROUND_CEILING))
