"""Lets requests come as far as the engine.

Any name for the model becomes that of the served one (that another name is a 404 is left to
`GET /v1/models/{name}`), and no request asks for less time than an answer takes, which is a 504.
"""

import schemathesis


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: schemathesis.Case, **_: object) -> None:
    if case.headers:
        case.headers.pop("x-request-timeout", None)
    body = case.body
    if isinstance(body, dict) and isinstance(body.get("model"), str) and body["model"]:
        body["model"] = "scripted"
