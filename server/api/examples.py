"""Requests of `/openapi.json` that can be sent as they are, for "Try it out" on `/docs`."""

from collections.abc import Mapping
from typing import Any

QUESTION = "Start with 7, add 5, times 3. What are the last two digits?"
MESSAGES = ({"role": "user", "content": QUESTION},)

CHAT = {"messages": MESSAGES, "max_thinking_tokens": 256}
COMPLETION = {"prompt": QUESTION, "max_tokens": 64}
ANTHROPIC_MESSAGE = {"messages": MESSAGES, "max_tokens": 256}
COUNT_TOKENS = {"messages": MESSAGES}
RESPONSE = {"input": QUESTION}
ROUTE = {"messages": MESSAGES}
TOKENIZE = {"prompt": QUESTION}
DETOKENIZE = {"tokens": (1, 2, 3)}


def add_examples(schema: dict[str, Any], bodies: Mapping[str, Any], model: str) -> None:
    """Add examples of requests to a document.

    Operations on something that requests have made, such as a stored response, have none.

    Args:
        schema: the document.
        bodies: the bodies without the model, by the ids of their operations.
        model: the name of the server's model.
    """
    for path in schema["paths"].values():
        for operation in path.values():
            if (body := bodies.get(operation["operationId"])) is not None:
                content = operation["requestBody"]["content"]["application/json"]
                content["example"] = {"model": model, **body}
    for parameter in schema["paths"]["/v1/models/{name}"]["get"]["parameters"]:
        if parameter["in"] == "path":
            parameter["example"] = model
