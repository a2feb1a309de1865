"""Recognizes the weights of a model by samples of their files."""

from collections.abc import Iterator
from pathlib import Path

from proctor.replica.handshake import digest

SAMPLES = 64
SAMPLE_BYTES = 4096


def digest_weights(model: str, revision: str | None = None) -> str:
    """Return a digest of samples of a model's weights.

    Reads a quarter of a megabyte of each file, so that it takes no time for large models. The
    digest is the same on every machine that has the same files.

    Args:
        model: a local folder, or a Hugging Face name whose files are in the local cache.
        revision: the revision of a Hugging Face name.

    Returns:
        The digest; empty if there are no files in the safetensors format.
    """
    folder = Path(model)
    if not folder.is_dir():
        cached = _cached_snapshot(model, revision)
        if cached is None:
            return ""
        folder = cached
    files = sorted(folder.glob("*.safetensors"))
    return digest(part for file in files for part in _samples(file)) if files else ""


def _cached_snapshot(model: str, revision: str | None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    try:
        config = try_to_load_from_cache(model, "config.json", revision=revision)
    except ValueError:  # no name on Hugging Face: the URL of an object store, say
        return None
    return Path(config).parent if isinstance(config, str) else None


def _samples(file: Path) -> Iterator[bytes]:
    """Yield a file's name, its size, and parts at equal distances from its header to its end."""
    size = file.stat().st_size
    yield file.name.encode()
    yield str(size).encode()
    with file.open("rb") as opened:
        for index in range(SAMPLES):
            opened.seek(index * max(0, size - SAMPLE_BYTES) // (SAMPLES - 1))
            yield opened.read(SAMPLE_BYTES)
