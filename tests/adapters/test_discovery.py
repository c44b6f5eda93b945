"""Tests of dpo.adapters: adapters are found in the folder, in installed packages and by path, with unique names."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import dpo.adapters
from dpo.adapters import find_adapters, get_adapter, load_adapter
from dpo.data.reading.source import parse_source
from dpo.errors import AdapterError

ADAPTER = """
from dpo.adapters.base import Adapter
from dpo.records import Drop

def convert(row, options):
    raise Drop("never")

ADAPTER = Adapter(name={name!r}, hub_id="org/name", split="train", columns=("a",), convert=convert, examples=())
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder whose adapter files are found in addition to the package's own."""
    monkeypatch.setattr(dpo.adapters, "__path__", [*dpo.adapters.__path__, str(tmp_path)])
    find_adapters.cache_clear()
    yield tmp_path
    monkeypatch.undo()
    find_adapters.cache_clear()


def test_a_file_in_the_folder_is_an_adapter(folder: Path) -> None:
    (folder / "zz_new.py").write_text(ADAPTER.format(name="zz_new"))
    assert "nectar" in find_adapters()
    assert get_adapter("zz_new").columns == ("a",)


def test_two_adapters_with_one_name_are_refused_and_both_modules_named(folder: Path) -> None:
    (folder / "zz_second.py").write_text(ADAPTER.format(name="nectar"))
    with pytest.raises(AdapterError) as caught:
        find_adapters()
    assert "two adapters have the name 'nectar'" in str(caught.value)
    assert "dpo.adapters.nectar" in str(caught.value)
    assert "dpo.adapters.zz_second" in str(caught.value)


@pytest.mark.parametrize("text", ["", "ADAPTER = 'nectar'\n"])
def test_a_file_without_an_adapter_is_refused(folder: Path, text: str) -> None:
    name = f"zz_empty_{len(text)}"
    (folder / f"{name}.py").write_text(text)
    with pytest.raises(AdapterError, match=rf"{name}\.py does not define ADAPTER"):
        find_adapters()


def test_a_name_with_a_separator_of_datasets_is_refused(folder: Path) -> None:
    (folder / "zz_name.py").write_text(ADAPTER.format(name="votes@2"))
    with pytest.raises(AdapterError, match=r"zz_name\.py: its name 'votes@2' contains"):
        find_adapters()


def test_a_file_that_cannot_be_imported_is_named(folder: Path) -> None:
    (folder / "zz_broken.py").write_text("def convert(row, options:\n")
    with pytest.raises(AdapterError, match=r"zz_broken cannot be imported: SyntaxError"):
        find_adapters()


def test_an_unknown_adapter_is_reported_with_the_available_ones() -> None:
    with pytest.raises(AdapterError) as caught:
        get_adapter("ultrafeedbck")
    assert str(caught.value).startswith("unknown adapter 'ultrafeedbck'. Did you mean ultrafeedback or ")
    assert f"Available: {', '.join(find_adapters())}" in str(caught.value)


def test_base_is_not_an_adapter() -> None:
    assert "base" not in find_adapters()


def test_an_adapter_file_may_be_in_any_folder(tmp_path: Path) -> None:
    file = tmp_path / "elsewhere.py"
    file.write_text(ADAPTER.format(name="elsewhere"))
    assert get_adapter("elsewhere", (file,)).columns == ("a",)
    assert parse_source("elsewhere", (file,)).adapter is load_adapter(file)
    with pytest.raises(AdapterError, match="unknown adapter 'elsewhere'"):
        get_adapter("elsewhere")


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("none.py", None, r"expected an existing Python file, with a name that ends in \.py"),
        ("rows.jsonl", "{}", r"expected an existing Python file, with a name that ends in \.py"),
        ("broken.py", "def convert(", r"broken\.py cannot be imported: SyntaxError"),
        ("leaves.py", "raise SystemExit(0)", r"leaves\.py cannot be imported: SystemExit"),
        ("empty.py", "", "does not define ADAPTER"),
        (
            "one_argument.py",
            "from dpo.adapters.base import Adapter\n"
            "ADAPTER = Adapter(name='a', hub_id=None, split='train', columns=(), convert=lambda row: [], examples=())",
            "convert cannot be called with a row and options: too many positional arguments",
        ),
    ],
)
def test_a_file_that_is_not_an_adapter_is_refused(tmp_path: Path, name: str, text: str | None, expected: str) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(AdapterError, match=expected):
        load_adapter(tmp_path / name)


def test_adapters_of_an_installed_package_are_found_by_entry_point(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    metadata = site / "my_package-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[dpo.adapters]\nzz_installed = zz_my_package\n")
    (site / "zz_my_package.py").write_text(ADAPTER.format(name="zz_installed"))
    monkeypatch.syspath_prepend(site)
    assert get_adapter("zz_installed").convert.__module__ == "zz_my_package"
