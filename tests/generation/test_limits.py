"""A model's context length and end tokens are read from its configuration files."""

import json
from pathlib import Path
from typing import Any

import pytest

from dpo.generation.limits import Limits, read_limits
from dpo.models.locating import LocatedModel


@pytest.mark.parametrize(
    ("config", "generation", "limits"),
    [
        ({"max_position_embeddings": 512, "eos_token_id": 2}, None, Limits(context=512, end_ids=(2,))),
        ({"n_positions": 1024, "eos_token_id": 2}, {}, Limits(context=1024, end_ids=(2,))),
        ({"eos_token_id": 2}, {"eos_token_id": [3, 4]}, Limits(context=None, end_ids=(3, 4))),
        ({"text_config": {"max_position_embeddings": 64}}, None, Limits(context=64, end_ids=())),
    ],
)
def test_limits_are_read_from_either_file(
    tmp_path: Path, config: dict[str, Any], generation: dict[str, Any] | None, limits: Limits
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    if generation is not None:
        (tmp_path / "generation_config.json").write_text(json.dumps(generation))
    assert read_limits(LocatedModel(base=str(tmp_path), tokenizer="elsewhere")) == limits
