"""Which base an adapter is merged into."""

import json
from pathlib import Path

import pytest

from dpo.errors import DPOError, ModelError
from dpo.hub import is_hub_id
from dpo.merging.names import locate_base


def adapter_on(base: str, folder: Path) -> str:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
    return str(folder)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    folder.mkdir()
    return folder


def test_the_base_that_the_adapter_names_is_the_default(base: Path, tmp_path: Path) -> None:
    adapter = adapter_on(str(base), tmp_path / "adapter")
    located = locate_base(adapter)
    assert (located.base, located.adapter, located.tokenizer) == (str(base), adapter, str(base))


def test_other_spellings_of_the_base_s_path_are_accepted(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = adapter_on(str(base), tmp_path / "adapter")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(base)
    for name in ("base", "./base/", "adapter/../base", "link"):
        assert locate_base(adapter, name).base == name


def test_a_hub_base_has_the_revision_of_the_flag_or_of_the_adapter(tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    config = {"base_model_name_or_path": "org/small", "revision": "step1000"}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    for model in (None, "org/small"):
        assert locate_base(str(adapter), model).base_revision == "step1000"
        assert locate_base(str(adapter), model, revision="step2000").base_revision == "step2000"
    assert locate_base(str(adapter), "org/moved", other_base=True).base_revision is None


def test_another_base_is_refused_with_both_names(base: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    adapter = adapter_on("org/small", tmp_path / "adapter")
    with pytest.raises(ModelError, match=f"trained on org/small, which is not --model {other}.\n.*--other_base"):
        locate_base(adapter, str(other))
    assert locate_base(adapter, str(other), other_base=True).base == str(other)


def test_the_tokenizer_follows_the_base_unless_the_adapter_has_one(base: Path, tmp_path: Path) -> None:
    adapter = adapter_on("org/small", tmp_path / "adapter")
    assert locate_base(adapter, str(base), other_base=True).tokenizer == str(base)
    (Path(adapter) / "tokenizer_config.json").write_text("{}")
    assert locate_base(adapter, str(base), other_base=True).tokenizer == adapter


def test_a_folder_that_is_not_an_adapter_is_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"found no adapter_config\.json"):
        locate_base(str(base))
    with pytest.raises(DPOError, match="there is no such folder"):
        locate_base(str(tmp_path / "none"))


def test_an_adapter_as_the_base_is_refused(base: Path, tmp_path: Path) -> None:
    first = adapter_on(str(base), tmp_path / "first")
    second = adapter_on(first, tmp_path / "second")
    with pytest.raises(ModelError, match="is an adapter, expected a whole model"):
        locate_base(second, first)


@pytest.mark.parametrize(
    ("name", "expected"), [("gpt2", True), ("org/name", True), ("./name", False), ("/a/b", False), ("a/b/c", False)]
)
def test_hub_ids_are_distinguished_from_folders(name: str, expected: bool) -> None:
    assert is_hub_id(name) is expected
