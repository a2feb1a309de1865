"""What a replica tells about itself."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from proctor.budget import Markers, Vocabulary
from proctor.replica.handshake import Handshake, digest_markers, digest_vocabulary
from proctor.replica.weights import digest_weights
from proctor.server.config.settings import DEMO
from tests.server.engines.replicas.scripted_replica import handshake


def test_it_survives_the_wire_and_ignores_what_later_versions_add() -> None:
    told = handshake()
    assert Handshake.from_wire({**told.to_wire(), "later": 1}) == told


@pytest.mark.parametrize("field", ["wire", "markers", "models", "started"])
def test_a_missing_field_is_malformed(field: str) -> None:
    wire = handshake().to_wire()
    del wire[field]
    with pytest.raises(ValueError, match=field):
        Handshake.from_wire(wire)


def test_the_identity_is_of_the_model_and_not_of_the_process() -> None:
    told = handshake()
    assert replace(told, started=0.0, max_running=1).identity == told.identity
    for field in ("markers", "vocabulary", "weights"):
        changed: dict[str, Any] = {field: "other"}
        assert replace(told, **changed).identity != told.identity


def test_digests_tell_markers_and_vocabularies_apart() -> None:
    markers = Markers((1,), (2,), frozenset({3}))
    assert digest_markers(markers) == digest_markers(Markers((1,), (2,), frozenset({3})))
    assert digest_markers(markers) != digest_markers(Markers((1,), (2,), frozenset({3, 4})))
    one, other = Vocabulary.from_bytes([b"a", b"bc"]), Vocabulary.from_bytes([b"ab", b"c"])
    assert digest_vocabulary(one) != digest_vocabulary(other)


def test_weights_are_told_by_samples_of_their_files(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(bytes(range(256)) * 4096)
    digest = digest_weights(str(tmp_path))
    assert len(digest) == 32
    file.write_bytes(bytes(range(256)) * 4095 + bytes(256))
    assert digest_weights(str(tmp_path)) != digest
    assert digest_weights(str(DEMO / "model")) == digest_weights(str(DEMO / "model")) != ""
    for elsewhere in (str(tmp_path / "absent"), "s3://bucket/model", "an-owner/a-model"):
        assert digest_weights(elsewhere) == ""
