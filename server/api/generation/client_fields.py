"""Names fields in errors as the client's protocol does."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from proctor.budget import BudgetError
from proctor.server.errors import ApiError, UnsupportedRequest, as_api_error


@contextmanager
def client_fields(names: Mapping[str, str]) -> Iterator[None]:
    """Name fields of chat requests in the body's errors as the client knows them.

    Args:
        names: the client's names of fields, by their names in chat requests.

    Raises:
        ApiError: in place of each error of the body.
    """
    try:
        yield
    except (ApiError, BudgetError, UnsupportedRequest) as error:
        renamed = as_api_error(error)
        known = "|".join(map(re.escape, names))
        pattern = re.compile(f"^({known})\\b")
        quoted = re.compile(f"(?<=')({known})\\b(?=[^' ]*')")
        renamed.args = (quoted.sub(lambda match: names[match[0]], str(error)),)
        if renamed.param is not None:
            renamed.param = pattern.sub(lambda match: names[match[0]], renamed.param)
        raise renamed from error
