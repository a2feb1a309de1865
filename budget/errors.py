"""The exception of this package."""


class BudgetError(ValueError):
    """A budget is invalid or cannot be enforced.

    Attributes:
        param: the invalid field, as named in the HTTP API
            (`max_thinking_tokens`, `thinking.continuations`, ...).
    """

    def __init__(self, param: str, message: str) -> None:
        super().__init__(message)
        self.param = param

    def __reduce__(self) -> tuple[type["BudgetError"], tuple[str, str]]:
        return type(self), (self.param, str(self))
