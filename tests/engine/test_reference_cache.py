"""The reference cache returns what was added, by content, and reads only complete files."""

import json

import numpy as np
import pytest

from dpo.engine.reference_cache import ReferenceCache, pair_digest, weights_fingerprint
from dpo.errors import ConfigError, ModelError

PAIR = {"prompt_ids": [1, 2], "chosen_ids": [3], "rejected_ids": [4, 5]}


def digests(*numbers: int) -> list[bytes]:
    return [pair_digest(PAIR | {"chosen_ids": [number]}) for number in numbers]


def test_entries_are_found_by_their_digest_and_others_are_unknown(tmp_path):
    cache = ReferenceCache(tmp_path, {"weights": "a"})
    assert np.isnan(cache.load(digests(1, 2))).all()
    cache.add(digests(1, 2), np.array([[-1.5, -2.5], [-3.5, -4.5]]))
    cache.add(digests(3), np.array([[-5.5, -6.5]]))
    found = ReferenceCache(tmp_path, {"weights": "a"}).load(digests(3, 9, 1))
    assert found[0].tolist() == [-5.5, -6.5]
    assert np.isnan(found[1]).all()
    assert found[2].tolist() == [-1.5, -2.5]


def test_another_identity_is_another_folder(tmp_path):
    ReferenceCache(tmp_path, {"weights": "a"}).add(digests(1), np.zeros((1, 2)))
    assert np.isnan(ReferenceCache(tmp_path, {"weights": "b"}).load(digests(1))).all()
    (folder,) = tmp_path.iterdir()
    assert json.loads((folder / "identity.json").read_text()) == {"weights": "a"}


def test_a_file_that_was_not_finished_is_not_read(tmp_path):
    cache = ReferenceCache(tmp_path, {})
    cache.add(digests(1), np.ones((1, 2)))
    (cache.folder / ".half").write_bytes(b"half a file")
    assert cache.load(digests(1)).tolist() == [[1.0, 1.0]]


@pytest.mark.parametrize(
    "other",
    [
        {"prompt_ids": [1], "chosen_ids": [2, 3]},
        {"chosen_ids": [4, 5], "rejected_ids": [3]},
        {"prompt_ids": [1, 2, 3], "chosen_ids": []},
    ],
)
def test_a_digest_depends_on_the_part_that_a_token_is_in(other):
    assert pair_digest(PAIR | other) != pair_digest(PAIR)
    assert pair_digest(dict(PAIR)) == pair_digest(PAIR)


def test_changed_weights_have_another_fingerprint(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    first = weights_fingerprint(str(tmp_path), None)
    assert first == weights_fingerprint(str(tmp_path), None)
    (tmp_path / "model.safetensors").write_bytes(b"weightz")
    assert weights_fingerprint(str(tmp_path), None) != first


def test_an_adapters_weights_are_found_in_every_format(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.bin").write_bytes(b"weights")
    found = weights_fingerprint(str(tmp_path), configuration="adapter_config.json")
    assert found.keys() == {"adapter_model.bin", "adapter_config.json"}


def test_a_folder_without_weights_is_an_error(tmp_path):
    with pytest.raises(ModelError, match="--no-reference_cache"):
        weights_fingerprint(str(tmp_path), None)


def test_a_folder_that_cannot_be_written_to_is_a_user_error(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ConfigError, match=r"cannot be written to: Not a directory[\s\S]*--no-reference_cache"):
        ReferenceCache(file, {"weights": "a"}).add([b"0" * 16], np.zeros((1, 2), dtype=np.float32))
