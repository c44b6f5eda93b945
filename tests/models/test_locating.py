"""How a model's name is resolved."""

import json
from pathlib import Path

import pytest

from dpo.errors import ModelError, TokenizerError
from dpo.hub import find_file
from dpo.models.locating import ADAPTER_CONFIG, LocatedModel, locate
from tests.builders import put_on_hub


def adapter(folder: Path, **config: object) -> Path:
    folder.mkdir()
    (folder / ADAPTER_CONFIG).write_text(json.dumps(config))
    return folder


def test_a_folder_is_its_own_base_and_tokenizer(chatml_folder: Path) -> None:
    assert locate(str(chatml_folder)) == LocatedModel(base=str(chatml_folder), tokenizer=str(chatml_folder))


def test_an_adapter_has_a_base_and_uses_its_own_tokenizer_or_that_of_the_base(
    chatml_folder: Path, tmp_path: Path
) -> None:
    folder = adapter(tmp_path / "adapter", base_model_name_or_path=str(chatml_folder))
    expected = {"base": str(chatml_folder), "adapter": str(folder)}
    assert locate(str(folder)) == LocatedModel(**expected, tokenizer=str(chatml_folder))
    (folder / "tokenizer_config.json").write_text("{}")
    assert locate(str(folder)) == LocatedModel(**expected, tokenizer=str(folder))


def test_a_revision_is_that_of_the_hub_adapter_and_its_base_keeps_the_one_of_training(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "adapter", base_model_name_or_path="org/base", revision="step1000")
    name = put_on_hub("org/located-adapter", v2=folder)
    found = locate(name, revision="v2")
    assert (found.base, found.base_revision) == ("org/base", "step1000")
    assert (found.adapter, found.adapter_revision) == (name, "v2")
    assert (found.tokenizer, found.tokenizer_revision) == ("org/base", "step1000")
    (folder / "tokenizer_config.json").write_text("{}")
    found = locate(put_on_hub(name, v2=folder), revision="v2")
    assert (found.tokenizer, found.tokenizer_revision) == (name, "v2")


def test_a_revision_of_an_adapter_folder_is_that_of_its_base(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "adapter", base_model_name_or_path="org/base", revision="step1000")
    assert locate(str(folder)).base_revision == "step1000"
    found = locate(str(folder), revision="step2000")
    assert (found.base_revision, found.adapter_revision) == ("step2000", None)


def test_the_error_names_a_revision_that_does_not_exist(tmp_path: Path) -> None:
    name = put_on_hub("org/without-v9", main=adapter(tmp_path / "adapter"))
    with pytest.raises(TokenizerError, match="did not provide the model at revision v9"):
        find_file(name, "config.json", "v9")


@pytest.mark.parametrize("config", [{}, {"base_model_name_or_path": None}, {"base_model_name_or_path": ""}])
def test_an_adapter_that_names_no_base_is_refused(config: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="base_model_name_or_path"):
        locate(str(adapter(tmp_path / "adapter", **config)))


def test_a_path_that_does_not_exist_is_not_looked_up_on_the_hub(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="there is no such folder"):
        locate(str(tmp_path / "none"))
