"""The one error of this package."""


class BudgetError(ValueError):
    """A budget that cannot be enforced as asked.

    Attributes:
        param: the field at fault, in the vocabulary of the HTTP interface
            (`max_thinking_tokens`, `thinking.continuations`, ...).
    """

    def __init__(self, param: str, message: str) -> None:
        super().__init__(message)
        self.param = param

    def __reduce__(self) -> tuple[type["BudgetError"], tuple[str, str]]:
        return type(self), (self.param, str(self))
