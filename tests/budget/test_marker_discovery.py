"""Markers of every family of reasoning models that vLLM knows, over small tokenizers."""

from typing import Any

import pytest

pytest.importorskip("vllm", reason="the CPU engine is not installed")

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from vllm.reasoning import ReasoningParserManager

from proctor.budget import BudgetStateMachine, EndReason, Markers, TokenBudget
from proctor.budget.marker_texts import TEMPLATE_PAIRS
from proctor.budget.processors.structured_outputs.reasoning_parser import NAME
from proctor.budget.processors.tokenizer.marker_discovery import (
    encode_markers,
    find_marker_texts,
)

THINK = ("<think>", "</think>")
MARKERS_BY_PARSER = {
    "cohere_command3": ("<|START_THINKING|>", "<|END_THINKING|>"),
    "cohere_command4": ("<|START_THINKING|>", "<|END_THINKING|>"),
    "deepseek_r1": THINK,
    "deepseek_v3": THINK,
    "deepseek_v4": THINK,
    "deepseek_v41": THINK,
    "ernie45": THINK,
    "gemma4": ("<|channel>", "<channel|>"),
    "glm45": THINK,
    "glm47": THINK,
    "granite_thinking_parser": THINK,
    "holo2": THINK,
    "hy_v3": THINK,
    "hy_v4": THINK,
    "inkling": ("<|content_thinking|>", "<|end_message|>"),
    "k2_horizon": ("<ifm|think>", "</ifm|think>"),
    "kimi_k2": THINK,
    "kimi_k3": ("<|open|>think<|sep|>", "<|close|>think<|sep|>"),
    "ling3": THINK,
    "mimo": THINK,
    "minicpmv": THINK,
    "minimax_m2": THINK,
    "minimax_m3": ("<mm:think>", "</mm:think>"),
    "mistral": ("[THINK]", "[/THINK]"),
    "nemotron_v3": THINK,
    "plamo3": ("<|plamo:begin_think:plamo|>", "<|plamo:end_think:plamo|>"),
    "qwen3": THINK,
    "seed_oss": ("<seed:think>", "</seed:think>"),
    "step3": THINK,
    "step3p5": THINK,
}
WITHOUT_MARKERS = {
    "granite": "writes its markers as sentences, in several wordings",
    "hf": "takes its markers from metadata of the tokenizer",
    "hunyuan_a13b": "knows its markers as token ids of one tokenizer",
    "minimax_m2_append_think": "leaves the thinking in the content",
    "muse_glimmer": "thinks in channels that end in several ways",
    "olmo3": "spells its end marker in several ways",
    "openai_gptoss": "thinks in channels that end in several ways",
    "poolside_v1": "wraps a parser that names none",
}
OTHER_SPECIAL_TOKENS = {
    "cohere": "<|START_TEXT|> <|END_TEXT|> <|START_RESPONSE|> <|END_RESPONSE|> "
    "<|START_ACTION|> <|END_ACTION|>",
    "gemma4": "<|tool_call> <tool_call|> <|tool_response> <|turn> <turn|> <|think|>",
    "inkling": "<|content_text|> <|message_model|> <|content_invoke_tool_json|> "
    "<|end_of_turn|> <|content_model_end_sampling|>",
    "kimi": "<|tool_calls_section_begin|> <|open|> <|close|> <|sep|> <|end_of_msg|>",
    "mistral": "[TOOL_CALLS] [ARGS] [CALL_ID]",
    "minimax": "<minimax:tool_call> </minimax:tool_call>",
    "others": "<tool_call> </tool_call> <tool_calls> </tool_calls> <response> </response>",
}


def tokenizer(*specials: str, template: str = "") -> Any:
    """Return a tokenizer of single bytes and the special tokens `specials`."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    base = Tokenizer(models.BPE({character: at for at, character in enumerate(alphabet)}, []))
    base.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    base.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=base, eos_token="<eos>")
    fast.add_tokens(list(specials), special_tokens=True)
    fast.chat_template = template
    return fast


def discover(tokens: Any, parser: str | None = None, **given: str | None) -> Markers:
    texts = find_marker_texts(tokens, start=given.get("start"), end=given.get("end"), parser=parser)
    return encode_markers(tokens, texts, {tokens.eos_token_id})


def assert_enforces(markers: Markers) -> None:
    """Assert that a maximum is enforced between these markers."""
    word = 1 + max(*markers.start, *markers.end, *markers.eos)
    machine = BudgetStateMachine(TokenBudget(maximum=3, opened=False), markers)
    for token in (*markers.start, word, word, word, *markers.end, word):
        assert machine.forced in (None, token)
        machine.advance(token)
    account = machine.outcome(EndReason.LENGTH)
    assert (account.tokens, account.end_reason) == (3, EndReason.MAX)


def test_every_parser_of_vllm_is_covered() -> None:
    # The engine registers Proctor's own parser.
    listed = {*ReasoningParserManager.list_registered()} - {NAME}
    assert {*MARKERS_BY_PARSER} | {*WITHOUT_MARKERS} == listed


@pytest.mark.parametrize(("name", "texts"), MARKERS_BY_PARSER.items())
def test_markers_are_found_by_the_parsers_name(name: str, texts: tuple[str, str]) -> None:
    others = " ".join(OTHER_SPECIAL_TOKENS.values()).split()
    tokens = tokenizer(*texts, *others) if name != "kimi_k3" else tokenizer(*others)
    markers = discover(tokens, name)
    assert (tokens.decode(markers.start), tokens.decode(markers.end)) == texts
    assert_enforces(markers)


@pytest.mark.parametrize("name", WITHOUT_MARKERS)
def test_a_parser_without_markers_is_refused_unless_they_are_configured(name: str) -> None:
    tokens = tokenizer("<think>", "</think>", *" ".join(OTHER_SPECIAL_TOKENS.values()).split())
    with pytest.raises(ValueError, match="thinking_start and thinking_end"):
        discover(tokens, name)
    assert_enforces(discover(tokens, name, start="<think>", end="</think>"))


def test_an_unknown_or_mismatched_parser_is_named() -> None:
    with pytest.raises(ValueError, match=r"reasoning_parser: .*no_such"):
        discover(tokenizer(), "no_such")
    with pytest.raises(ValueError, match="reasoning_parser deepseek_r1 does not fit"):
        discover(tokenizer(), "deepseek_r1")


@pytest.mark.parametrize("texts", TEMPLATE_PAIRS)
def test_markers_are_found_in_a_template(texts: tuple[str, str]) -> None:
    tokens = tokenizer(template=f"{{{{ messages }}}}{texts[0]} ... {texts[1]}")
    assert_enforces(discover(tokens))


def test_a_model_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="set reasoning_parser"):
        discover(tokenizer(template="{{ messages }}"))


def test_a_start_marker_without_an_end_marker_is_refused() -> None:
    with pytest.raises(ValueError, match="together"):
        discover(tokenizer(), start="<think>")


def test_markers_of_ordinary_tokens_may_share_the_first_ones() -> None:
    plain = discover(tokenizer(), start="Here is my thought:", end="Here is my answer:")
    assert len(plain.start) == 19
    assert plain.start[:11] == plain.end[:11]
    assert_enforces(plain)
    s1 = discover(tokenizer("<|im_start|>"), start="<|im_start|>think", end="<|im_start|>answer")
    assert (len(s1.start), len(s1.end)) == (6, 7)
    assert_enforces(s1)
