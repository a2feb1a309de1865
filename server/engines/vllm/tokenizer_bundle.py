"""Loads the local parts of a model that is served elsewhere: all but its weights."""

from vllm.config import VllmConfig
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.renderers import renderer_from_config
from vllm.utils.gc_utils import freeze_gc_heap

from proctor.budget.processors.tokenizer.marker_discovery import MarkerSource, find_markers
from proctor.budget.processors.tokenizer.vocabulary import read_vocabulary
from proctor.server.engines.local_model import LocalModel
from proctor.server.engines.vllm.codec import VllmCodec
from proctor.server.engines.vllm.tools import VllmTools


def load_local(
    model: str,
    markers: MarkerSource,
    tool_call_parser: str | None = None,
    *,
    binds: bool = False,
) -> LocalModel:
    """Load a model's tokenizer, chat template and settings.

    Args:
        model: a path or a Hugging Face name.
        markers: the source of its thinking markers.
        tool_call_parser: the name of vLLM's tool parser, or None without tool calls.
        binds: whether its engine supports structured output.

    Raises:
        ValueError: if the markers cannot be found, the model has no end-of-sequence token, or the
            parser does not exist.
    """
    config = AsyncEngineArgs(model=model).create_model_config()
    vllm_config = VllmConfig(model_config=config)
    renderer = renderer_from_config(vllm_config)
    tokenizer = renderer.get_tokenizer()
    texts, token_markers = find_markers(tokenizer, config, markers)
    if not token_markers.eos:
        raise ValueError(
            "the model has no end-of-sequence token, which budgets over a completions server need"
        )
    local = LocalModel(
        codec=VllmCodec(renderer, texts[0]),
        markers=token_markers,
        end_text=texts[1],
        vocabulary=read_vocabulary(tokenizer, config.get_vocab_size()),
        defaults=config.get_diff_sampling_param(),
        config=vllm_config,
        tools=(
            None
            if tool_call_parser is None
            else VllmTools(tool_call_parser, tokenizer, binds=binds)
        ),
    )
    # Keeps full garbage collections, which block every stream, from traversing all of vLLM.
    freeze_gc_heap()
    return local
