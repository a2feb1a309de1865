"""Rows in a model's own chat template and markers."""

import json
from pathlib import Path
from typing import Any

import pytest

from proctor.curation.audit.measure import audit
from proctor.curation.errors import CurationError
from proctor.curation.model import Model
from proctor.curation.output.options import Output
from proctor.curation.output.writer import write_rows
from proctor.curation.readers.files import read_records
from proctor.curation.recipe import load_recipe
from proctor.curation.run.pipeline import Pipeline
from tests.curation.factories import ANSWER, QUESTION, TRACE, make_row, write_lines

transformers = pytest.importorskip("transformers", reason="no engine is installed")

DEMO = Path(__file__).parents[2] / "demo" / "model"
THINK = ("<think>", "</think>")

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
QWEN3 = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.reasoning_content is defined %}<think>\n{{ m.reasoning_content }}\n</think>\n\n"
    "{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
DEEPSEEK = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content.split('</think>')[-1] }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant><think>{% endif %}"
)


def make_model(template: str | None, markers: tuple[str, str] | None = None) -> Model:
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(DEMO)
    tokenizer.chat_template = template
    return Model(tokenizer, markers)


@pytest.mark.parametrize(
    ("template", "markers", "completion"),
    [
        (QWEN3, None, "<think>\nT\n</think>\n\nA<|im_end|>"),
        (CHATML, THINK, "<think>\nT\n</think>\n\nA<|im_end|>"),
        (DEEPSEEK, None, "\nT\n</think>\n\nA"),
        (
            CHATML,
            ("<|im_start|>think", "<|im_start|>answer"),
            "<|im_start|>think\nT\n<|im_start|>answer\nA<|im_end|>",
        ),
    ],
)
def test_completions(template: str, markers: tuple[str, str] | None, completion: str) -> None:
    model = make_model(template, markers)
    prompt, written = model.render("Q", "T", "A")

    assert written == completion
    assert prompt.endswith(("<|im_start|>assistant\n", "<assistant><think>"))
    assert model.markers is not None
    assert model.markers[0] in prompt + written


def test_the_demo_model_opens_the_thinking_in_its_prompt() -> None:
    model = Model.load(str(DEMO))
    prompt, completion = model.render(QUESTION, TRACE, ANSWER)

    assert model.markers == THINK
    assert prompt == f"<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n<think>\n"
    assert completion == f"{TRACE}\n</think>\n\n{ANSWER}<|im_end|>"


def test_a_prompt_is_the_one_that_the_server_would_write() -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(DEMO)
    prompt, _ = Model(tokenizer, None).render(QUESTION, TRACE, ANSWER)

    assert prompt == tokenizer.apply_chat_template(
        [{"role": "user", "content": QUESTION}], tokenize=False, add_generation_prompt=True
    )


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (CHATML, "no known thinking markers: set thinking_start and thinking_end"),
        (None, "no chat template"),
        ("{{ raise_exception('no') }}<think></think>", "its chat template fails: no"),
    ],
)
def test_templates_that_cannot_be_written(template: str | None, message: str) -> None:
    with pytest.raises(CurationError, match=message):
        make_model(template).render("Q", "T", "A")


def test_a_model_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(CurationError, match="there is no folder"):
        Model.load(str(tmp_path / "none"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(CurationError, match="has no tokenizer"):
        Model.load(str(tmp_path / "empty"))


def test_the_digest_depends_on_template_and_markers() -> None:
    models = [
        make_model(CHATML, THINK), make_model(CHATML, ("<a>", "</a>")), make_model(QWEN3, THINK),
    ]  # fmt: skip
    assert len({model.digest for model in models}) == 3
    assert make_model(CHATML, THINK).digest == models[0].digest


def test_a_block_size_that_cuts_rows_is_refused(tmp_path: Path) -> None:
    model = Model.load(str(DEMO))
    rows = [make_row(id="short"), make_row(id="long", trace=f"{TRACE}\n" * 9)]
    lengths = [model.count("".join(model.render(QUESTION, row.trace, ANSWER))) for row in rows]
    path = tmp_path / "rows.jsonl"

    def write(size: int) -> Any:
        return write_rows(path, rows, Output(form="template", block_size=size), model)

    with pytest.raises(CurationError) as raised:
        write(lengths[1] - 1)
    message = f"would cut 1 of 2 rows; the longest, long, has {lengths[1]} tokens"
    assert message in str(raised.value)
    assert not list(tmp_path.iterdir())

    written = write(lengths[1])
    assert (written.shortest, written.longest) == tuple(lengths)
    first = json.loads(path.read_text().split("\n")[0])
    assert first["prompt"] + first["completion"] == "".join(model.render(QUESTION, TRACE, ANSWER))


def test_a_run_in_the_models_form(tmp_path: Path) -> None:
    """What is written for a model is, to the audit, in the markers that the server enforces."""
    write_lines(tmp_path / "pool.jsonl", [{"question": QUESTION, "trace": TRACE, "answer": ANSWER}])
    (tmp_path / "recipe.toml").write_text(
        f'model = "{DEMO}"\n[[inputs]]\npath = "pool.jsonl"\n[[stages]]\nstage = "reasoning"\n'
        '[output]\nform = "template"\nblock_size = 2048\n'
    )
    recipe = load_recipe(tmp_path / "recipe.toml")
    result = Pipeline(recipe, tmp_path / "out").run()
    model = Model.load(str(DEMO))

    measured = audit(read_records(tmp_path / "out/rows.jsonl"), model, None)

    assert measured.markers == {THINK: 1}
    assert list(measured.lengths) == [model.count(TRACE)] == [result.traces.longest]
    assert result.rows is not None
    assert result.rows.longest > result.traces.longest


def test_letters_weigh_in_the_models_tokens() -> None:
    model = Model.load(str(DEMO))
    ids, weights = model.encode("apples 42")

    assert len(ids) == model.count("apples 42")
    assert max(weights[token] for token in ids) > 0
    assert weights[model.encode("42")[0][-1]] == 0
