"""Constraints that are expensive for a server to compile, or that cannot be enforced.

Each is a set of fields of a chat request, without its messages. `REPORTED` are those of the issues
that led to `server/engines/grammars/`, as they were reported.
"""

import json
from typing import Any

Fields = dict[str, Any]
Schema = dict[str, Any]

SMALL: Schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
LONG_BEGINNING = "a" * 60
"""Longer than the part of a grammar that is tried before the engine gets it."""


def json_schema(schema: Any) -> Fields:
    """Return OpenAI's `response_format` with this schema."""
    return {
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    }


def outputs(**constraint: Any) -> Fields:
    """Return vLLM's `structured_outputs` with this constraint."""
    return {"structured_outputs": constraint}


def pattern_schema(pattern: str) -> Schema:
    return {"type": "string", "pattern": pattern}


def object_schema(count: int, member: Any) -> Schema:
    """Return the schema of an object with `count` optional members."""
    return {"type": "object", "properties": {f"p{i}": member for i in range(count)}}


def structural_tag_outputs(content: Any) -> Fields:
    """Return a structural tag with this content."""
    tag_format = {"type": "tag", "begin": "<a>", "content": content, "end": "</a>"}
    return outputs(structural_tag=json.dumps({"type": "structural_tag", "format": tag_format}))


def tool(parameters: Any, name: str = "f", *, strict: bool = True) -> Fields:
    function = {"name": name, "parameters": parameters, "strict": strict}
    return {"type": "function", "function": function}


def tools(parameters: Any, choice: str = "required", *, strict: bool = True) -> Fields:
    """Return the fields of one tool, with its `tool_choice`."""
    return {"tools": [tool(parameters, strict=strict)], "tool_choice": choice}


def repeated(pattern: str, times: str, levels: int) -> str:
    for _ in range(levels):
        pattern = f"({pattern}){times}"
    return pattern


def nested(levels: int) -> Schema:
    schema: Schema = {"type": "integer"}
    for _ in range(levels):
        schema = {"anyOf": [schema]}
    return schema


def doubling(levels: int, join: Any) -> Schema:
    """Return definitions that each refer to the next one twice."""
    names = [f"#/$defs/d{i}" for i in range(levels + 1)]
    inner = {f"d{i}": join({"$ref": names[i + 1]}, {"$ref": names[i + 1]}) for i in range(levels)}
    return {"$ref": names[0], "$defs": {**inner, f"d{levels}": SMALL}}


def pair(one: Schema, other: Schema) -> Schema:
    return {"type": "object", "properties": {"a": one, "b": other}}


def rules(count: int, body: str, last: str) -> str:
    """Return grammar rules that each refer to the next one."""
    lines = [f"r{i} ::= {body.replace('NEXT', f'r{i + 1}')}" for i in range(count)]
    return "\n".join(["root ::= r0", *lines, f"r{count} ::= {last}"])


TWO_HUNDRED = object_schema(200, {"type": "integer"})
BRANCHES = {"anyOf": [{"type": "array", "items": {"$ref": "#"}}] * 50 + [{"type": "integer"}] * 50}
EITHER = {"anyOf": [{"type": "string"}, {"type": "string", "maxLength": 3}]}

REPORTED: dict[str, Fields] = {
    "40,000 stars": json_schema(pattern_schema("a" + "*" * 40000)),
    "50 patterns of 48,000": json_schema(object_schema(50, pattern_schema("a{0,48000}"))),
    "any 5,000 characters": json_schema(pattern_schema("^.{1,5000}$")),
    "20,000 characters": json_schema(pattern_schema("a{0,20000}")),
    "900 patterns, 16 choices": {
        **json_schema(object_schema(900, pattern_schema("(a|b)*a(a|b){200}"))),
        "n": 16,
    },
    "ten billion in 44 characters": outputs(regex="((((a{1,100}){1,100}){1,100}){1,100}){50,100}"),
    "the same in a schema": json_schema(
        pattern_schema("((((a{1,100}){1,100}){1,100}){1,100}){50,100}")
    ),
    "200 ambiguous groups": outputs(regex="(.*.*)*" * 200),
    "the same in a schema too": json_schema(pattern_schema("(.*.*)*" * 200)),
    "an ambiguous rule": outputs(grammar='e ::= e e | e e e | [a-z] | ""'),
    "an ambiguous rule and a root": outputs(grammar='root ::= e\ne ::= e e | e e e | [a-z] | ""'),
    "a billion in a grammar": outputs(grammar='root ::= (("a"{1,1000}){1,1000}){1,1000}'),
    "60 rules that double": outputs(grammar=rules(60, "NEXT NEXT", '"a"')),
    "200 counted members": json_schema({**TWO_HUNDRED, "minProperties": 100, "maxProperties": 150}),
    "1,024 long choices": outputs(choice=[f"{i:04}" + "x" * 3996 for i in range(1024)]),
    "multiples of 5": json_schema({"type": "integer", "multipleOf": 5}),
    "multiples of 7": json_schema({"multipleOf": 7}),
    "allOf with enum": json_schema({"allOf": [{"type": "string"}, {"enum": ["yes", "no"]}]}),
}

SCHEMAS: dict[str, Fields] = {
    "references that double": json_schema(doubling(60, pair)),
    "alternatives that double": json_schema(doubling(60, lambda *both: {"anyOf": [*both]})),
    "alternatives that multiply": json_schema(
        {"allOf": [{"anyOf": [object_schema(3, {"maximum": i}), SMALL]} for i in range(24)]}
    ),
    "alternatives that multiply objects": json_schema(
        {
            "allOf": [
                {"anyOf": [{"properties": {f"a{i}": {"type": "integer", "minimum": j}}}]}
                for i in range(12)
                for j in range(4)
            ]
        }
    ),
    "the same alternatives": json_schema(BRANCHES),
    "strings of many lengths": json_schema(
        {"anyOf": [{"type": "string", "maxLength": i + 5} for i in range(300)]}
    ),
    "arrays of many lengths": json_schema(
        {"anyOf": [{"type": "array", "items": EITHER, "maxItems": i} for i in range(200)]}
    ),
    "a reference to itself": json_schema({"$ref": "#"}),
    "references in a circle": json_schema(
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}
    ),
    "a reference to nothing": json_schema({"$ref": "#/$defs/a"}),
    "a reference to elsewhere": json_schema({"$ref": "https://example.org/schema"}),
    "a huge enum": json_schema({"enum": [f"value {i}" for i in range(3000)]}),
    "a huge constant": json_schema({"const": "x" * 60000}),
    "a long string": json_schema({"type": "string", "maxLength": 10**6}),
    "a longer string": json_schema({"type": "string", "minLength": 10**9, "maxLength": 10**12}),
    "a long array": json_schema({"type": "array", "items": {"type": "integer"}, "maxItems": 10**6}),
    "arrays of long arrays": json_schema(
        {
            "type": "array",
            "maxItems": 10**4,
            "items": {"type": "array", "maxItems": 10**4, "items": EITHER},
        }
    ),
    "1,000 optional members": json_schema(object_schema(1000, {"type": "integer"})),
    "300 divisors": json_schema(
        object_schema(0, 0)
        | {"properties": {f"p{i}": {"type": "integer", "multipleOf": 997 + i} for i in range(300)}}
    ),
    "a large divisor": json_schema({"type": "integer", "multipleOf": 99_999_989}),
    "a small divisor": json_schema({"type": "number", "multipleOf": 1e-7}),
    "wide bounds": json_schema(
        {"type": "number", "minimum": -1.23456789e300, "maximum": 9.87654321e300}
    ),
    "patterns of members": json_schema(
        {"type": "object", "properties": {"a": {}}, "patternProperties": {"(a|b)*a(a|b){12}": {}}}
    ),
    "names of a pattern": json_schema(
        {"type": "object", "propertyNames": pattern_schema("(a*)*b")}
    ),
    "200 levels": json_schema(nested(200)),
    "90 levels": json_schema(nested(90)),
    "objects all the way down": json_schema(
        {"type": "object", "additionalProperties": {"$ref": "#"}}
    ),
    "1,000 items by place": json_schema({"type": "array", "prefixItems": [EITHER] * 1000}),
    "a long name": json_schema({"type": "object", "required": ["x" * 30000]}),
    "odd names": json_schema(
        {"type": "object", "properties": {'"\\\n\0': {"enum": ['"', "\\", "\0"]}}}
    ),
    "a group left open": json_schema(pattern_schema("(")),
    "a look ahead": json_schema(pattern_schema("^(?!a).*$")),
    "nested stars": json_schema(pattern_schema("^(([a-z]*)*)*$")),
    "an exponential match": json_schema(pattern_schema("^(([a-z])+.)+[A-Z]([a-z])+$")),
    "quotes in a pattern": json_schema(pattern_schema('^"[\\\\"]{1,50}"$')),
    "not": json_schema({"type": "string", "not": {"const": "a"}}),
    "if and then": json_schema({**SMALL, "if": {"required": ["a"]}, "then": {"required": ["b"]}}),
    "oneOf of what overlaps": json_schema({"oneOf": [{"type": "integer"}, {"type": "number"}]}),
    "all different": json_schema(
        {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}
    ),
    "no type": json_schema({"type": "strin"}),
    "no properties": json_schema({"properties": 3, "required": {}}),
}

PATTERNS: dict[str, Fields] = {
    "50 repetitions of 48,000": outputs(regex="a{0,48000}" * 50),
    "nested optionals": outputs(regex="(((((((a?b?)?c?)?d?)?e?)?f?)?g?)?h?)*"),
    "2**18 states": outputs(regex="[ab]*a[ab]{18}"),
    "200 times 2**200 states": outputs(regex="(a|b)*a(a|b){200}" * 200),
    "nested repetitions": outputs(regex=repeated("a", "{0,99}", 5)),
    "4,000 stars": outputs(regex="a" + "*" * 4000),
    "2,000 groups": outputs(regex="(" * 2000 + "a" + ")" * 2000),
    "1,000 runs of anything": outputs(regex=".*" * 1000),
    "a class left open": outputs(regex="["),
    "a count without end": outputs(regex="a{1," + "9" * 4000 + "}"),
    "3,000 of 6,000": outputs(regex="(a?){3000}a{3000}"),
    "a reference back": outputs(regex="(a+)\\1"),
    "a byte of zero": outputs(regex="a\0b"),
    "500 alternatives": outputs(regex="|".join(f".*{i}.*" for i in range(500))),
    "any letters": outputs(regex=r"\p{L}{1,5000}"),
    "what is ambiguous later": outputs(regex="[a-z]{60}" + "(.*.*)*" * 50),
    "what repeats later": outputs(regex="[a-z]{60}((a{1,20}){1,20}){1,20}"),
}

GRAMMARS: dict[str, Fields] = {
    "expressions of expressions": outputs(grammar='root ::= e\ne ::= e e | "a" | "aa" | e "a"'),
    "30 rules that double": outputs(grammar=rules(30, "NEXT NEXT", '"x"')),
    "2,000 rules": outputs(grammar=rules(2000, '"a" NEXT | "b" NEXT', '"x"')),
    "20,000 parentheses": outputs(grammar="root ::= " + "(" * 20000 + '"a"' + ")" * 20000),
    "a grammar of repetitions": outputs(grammar='root ::= ("a"{0,99999} "b"{0,99999}){0,999}'),
    "rules in a circle": outputs(grammar="root ::= a\na ::= b\nb ::= a"),
    "nothing, without end": outputs(grammar='root ::= root root | ""'),
    "a rule that is missing": outputs(grammar="root ::= a"),
    "half a rule": outputs(grammar="root ::= "),
    "a rule that is ambiguous later": outputs(
        grammar=f'root ::= "{LONG_BEGINNING}" e\ne ::= e e | e e e | [a-z] | ""'
    ),
    "left recursion, hidden": outputs(grammar='root ::= a root "x" | "y"\na ::= "" | "z"'),
    "long repetitions in Lark": outputs(grammar="start: x{0,50000}\nx: /a{0,1000}/ x?"),
    "billions in Lark": outputs(grammar='start: (("a" ~ 1..1000) ~ 1..1000) ~ 1..1000'),
    "ambiguous Lark": outputs(grammar='start: e\ne: e e | "a" | "aa"'),
    "an ambiguous terminal": outputs(grammar="start: /(.*.*)*(.*.*)*(.*.*)*/"),
    "a terminal of itself": outputs(grammar='start: A\nA: A "a" | "b"'),
    "half of Lark": outputs(grammar="start: "),
}

CHOICES: dict[str, Fields] = {
    "1,000 long texts": outputs(choice=[f"{i} " * 800 for i in range(1000)]),
    "1,024 texts with one beginning": outputs(choice=[f"{'x' * 58}{i:04}" for i in range(1024)]),
    "texts of signs": outputs(choice=['"', "\\", "\n", "\0", "::=", '" | "', "\u2028", "]"]),
}

TAGS: dict[str, Fields] = {
    "no tag": outputs(structural_tag='{"triggers": 1}'),
    "no JSON": outputs(structural_tag="{"),
    "2,000 lists": outputs(structural_tag="[" * 2000),
    "an empty trigger": outputs(
        structural_tag=json.dumps(
            {"structures": [{"begin": "", "schema": SMALL, "end": ""}], "triggers": [""]}
        )
    ),
    "stars in a tag": structural_tag_outputs(
        {"type": "json_schema", "json_schema": pattern_schema("a" + "*" * 9000)}
    ),
    "stars in an old tag": outputs(
        structural_tag=json.dumps(
            {
                "structures": [
                    {"begin": "<a>", "schema": pattern_schema("a" + "*" * 900), "end": "</a>"}
                ],
                "triggers": ["<a>"],
            }
        )
    ),
    "a pattern in a tag": structural_tag_outputs({"type": "regex", "pattern": "(.*.*)*" * 200}),
    "a grammar in a tag": structural_tag_outputs(
        {"type": "grammar", "grammar": 'root ::= root root | "a" | ""'}
    ),
    "multiples in a tag": structural_tag_outputs(
        {"type": "json_schema", "json_schema": {"type": "integer", "multipleOf": 7}}
    ),
    "allOf in a tag": structural_tag_outputs(
        {"type": "json_schema", "json_schema": {"allOf": [{"type": "string"}, {"enum": ["a"]}]}}
    ),
    "alternatives in a tag": structural_tag_outputs(
        {"type": "json_schema", "json_schema": BRANCHES}
    ),
    "a thousand tags": outputs(
        structural_tag=json.dumps(
            {
                "type": "structural_tag",
                "format": {
                    "type": "triggered_tags",
                    "triggers": ["<f"],
                    "tags": [
                        {"begin": f"<f{i}>", "content": {"type": "any_text"}, "end": "</f>"}
                        for i in range(700)
                    ],
                },
            }
        )
    ),
}

TOOLS: dict[str, Fields] = {
    "stars beside a tool": {
        **tools(SMALL, "auto"),
        **json_schema(pattern_schema("a" + "*" * 40000)),
    },
    "a few stars beside a tool": {
        **tools(SMALL, "auto"),
        **json_schema(pattern_schema("a" + "*" * 60)),
    },
    "a regex beside a tool": {**tools(SMALL, "auto"), **outputs(regex="(.*.*)*" * 200)},
    "a grammar beside a tool": {
        **tools(SMALL, "auto"),
        **outputs(grammar='root ::= e\ne ::= e e | e e e | [a-z] | ""'),
    },
    "Lark beside a tool": {**tools(SMALL, "auto"), **outputs(grammar='start: e\ne: e e | "a"')},
    "multiples beside a tool": {
        **tools(SMALL, "auto"),
        **json_schema({"type": "integer", "multipleOf": 7}),
    },
    "stars in a tool": tools(object_schema(1, pattern_schema("a" + "*" * 40000))),
    "stars in a tool that is strict": tools(
        object_schema(1, pattern_schema("a" + "*" * 4000)), "auto"
    ),
    "stars in a tool that is not": tools(
        object_schema(1, pattern_schema("a" + "*" * 400)), "auto", strict=False
    ),
    "ambiguity in a tool": tools(object_schema(1, pattern_schema("(.*.*)*" * 200))),
    "multiples of a half in a tool": tools(object_schema(1, {"type": "number", "multipleOf": 0.5})),
    "allOf with enum in a tool": tools(
        object_schema(1, {"allOf": [{"enum": ["a"]}, {"enum": ["b"]}]})
    ),
    "references that double in a tool": tools(
        doubling(60, lambda *both: {"anyOf": [*both]}), "required"
    ),
    "branches times members": tools(
        {**object_schema(1500, {}), "anyOf": [{"required": [f"p{i}"]} for i in range(1500)]}
    ),
    "counted members in a tool": tools({**TWO_HUNDRED, "minProperties": 90, "maxProperties": 150}),
    "90 levels in a tool": tools(object_schema(1, nested(90))),
    "128 tools": {
        "tools": [tool(object_schema(4, {"enum": ["a", "b"]}), f"f{i}") for i in range(128)],
        "tool_choice": "required",
    },
}

HOSTILE: dict[str, Fields] = {
    **REPORTED,
    **SCHEMAS,
    **PATTERNS,
    **GRAMMARS,
    **CHOICES,
    **TAGS,
    **TOOLS,
}
