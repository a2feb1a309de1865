"""The text that describes each signal to a reader, by the signal's identifier.

Code and the model file refer to a signal by its identifier. The texts are what
`POST /v1/route` returns in `signals[].name` and what `proctor route` prints.
"""

from collections.abc import Mapping

FIRST = "_first"
LAST = "_last"
"""Suffixes of a lexicon group's signals: the group occurs at the text's beginning or end."""

TEXTS: Mapping[str, str] = {
    # size
    "length": "length",
    "length_squared": "length squared",
    "unread_length": "more than is read",
    "instruction_length": "length of the asking",
    "few_words": "a few words",
    "one_line": "one line of words",
    "material_share": "material",
    "empty": "empty",
    # notation
    "numbers": "numbers",
    "one_number": "a number",
    "two_numbers": "two numbers",
    "three_numbers": "three numbers",
    "four_or_more_numbers": "four numbers or more",
    "distinct_numbers": "different numbers",
    "numeric_sentences": "sentences with numbers",
    "large_numbers": "large numbers",
    "very_long_numbers": "very long numbers",
    "number_words": "number words",
    "number_share": "share of numbers",
    "operators": "operators",
    "latex": "LaTeX",
    "powers": "powers",
    "variables": "variables",
    "sentences": "sentences",
    "questions": "questions",
    "long_word_share": "long words",
    "proper_names": "names",
    "word_variety": "variety of words",
    "commas": "commas",
    # layout
    "code": "code",
    "code_share": "share of code",
    "code_block": "code block",
    "symbols": "symbols",
    "answer_options": "options to choose from",
    "list_items": "list items",
    "lines": "lines",
    "ends_with_question": "ends with a question",
    "ends_without_punctuation": "ends without a stop",
    "starts_lowercase": "begins in lower case",
    "exclamations": "exclamations",
    "emoji": "emoji",
    "capitals": "capitals",
    "quotation": "quotation",
    "tools": "tools",
    "has_previous_turn": "a turn before",
    "previous_answer_length": "length of the answer before",
    # combinations
    "math_proof": "proof of mathematics",
    "math_proof_first": "a proof asked first",
    "math_in_latex": "mathematics in LaTeX",
    "math_optimum": "extremes in mathematics",
    "chance_with_numbers": "chance with numbers",
    "quantity_with_numbers": "a quantity asked of numbers",
    "multi_step_arithmetic": "many steps with numbers",
    "one_step_arithmetic": "one step with numbers",
    "ratios": "shares and multiples",
    "options_without_numbers": "options without numbers",
    "build_program": "a program to be built",
    "difficult_program": "a difficult program",
    "estimate": "an estimate",
    "expert_question": "a question for an expert",
    "write_text": "a text to be made",
    "faulty_code": "code and a fault",
    "faulty_system": "systems at fault",
    "write_code": "code to be written",
    "short_plain": "short and plain",
    "plain": "plain",
    "short_playful": "playful and short",
    "plain_fact": "a fact and nothing more",
    "edit_text": "work on a text",
    "plain_format": "form",
    "short_follow_up": "short after a turn",
    # the rules
    "previous_turn_score": "the turn before",
    "follow_up_score": "asks on",
    "rules_score": "the rules' score",
    "rules_score_over_0": "the rules' score over 0",
    "rules_score_over_1": "the rules' score over 1",
    "rules_score_over_2": "the rules' score over 2",
    "rules_score_over_3": "the rules' score over 3",
    # evidence that is not a feature
    "ngrams": "the wording",
    "trees": "signals together",
    "directives_removed": "words about tiers, left out",
}
"""Texts of all signals except those of the lexicon, which `text_of` derives from the group."""


def text_of(identifier: str) -> str:
    """Return a signal's text; a lexicon group's are `prove`, `prove first` and `prove last`."""
    if identifier in TEXTS:
        return TEXTS[identifier]
    for suffix in (FIRST, LAST):
        if identifier.endswith(suffix):
            return f"{identifier.removesuffix(suffix)} {suffix[1:]}"
    return identifier
