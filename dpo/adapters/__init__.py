"""Adapters: one file per data set, found in this folder, by an entry point, or by its path."""

__all__ = ["find_adapters", "get_adapter", "load_adapter"]

import hashlib
import importlib
import importlib.util
import inspect
import pkgutil
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

from dpo.adapters.base import Adapter, AdapterOptions
from dpo.errors import AdapterError, unknown_name

ENTRY_POINTS = "dpo.adapters"
"""Group of entry points in which an installed package lists its adapters: my_votes = "my_package.my_votes"."""


@cache
def find_adapters(files: tuple[Path, ...] = ()) -> dict[str, Adapter]:
    """Return all adapters by name, in alphabetical order.

    Args:
        files: Adapter files to add to those of this folder and of installed packages.

    Raises:
        AdapterError: if a module cannot be imported or does not define ADAPTER, or if an adapter's name is not allowed
            or not unique.
    """
    adapters: dict[str, Adapter] = {}
    for module in list_modules(files):
        adapter = adapter_of(module)
        if adapter.name in adapters:
            raise AdapterError(
                f"two adapters have the name '{adapter.name}': {adapters[adapter.name].convert.__module__} "
                f"and {module.__name__}.\n  Rename one of them."
            )
        adapters[adapter.name] = adapter
    return dict(sorted(adapters.items()))


def get_adapter(name: str, files: tuple[Path, ...] = ()) -> Adapter:
    """Return the adapter with a name.

    Args:
        name: Name of the adapter.
        files: Adapter files, as in find_adapters.

    Raises:
        AdapterError: if no adapter has this name. The message lists the available ones.
    """
    adapters = find_adapters(files)
    if name not in adapters:
        raise AdapterError(
            f"{unknown_name('adapter', name, adapters)}\n  Pass --adapter FILE.py to add an adapter of your own."
        )
    return adapters[name]


def load_adapter(file: Path) -> Adapter:
    """Load the adapter that a file defines.

    Raises:
        AdapterError: if the file is missing, cannot be imported, or does not define ADAPTER.
    """
    return adapter_of(load_file(file.expanduser()))


def list_modules(files: tuple[Path, ...]) -> Iterator[ModuleType]:
    """Import the adapter modules of this folder, of installed packages, and of the files."""
    from importlib.metadata import entry_points  # takes 60 ms, which --help does not need

    for name in sorted(module.name for module in pkgutil.iter_modules(__path__)):
        if name != "base":
            yield import_adapter(f"{__name__}.{name}")
    for entry in sorted(entry_points(group=ENTRY_POINTS)):
        yield import_adapter(entry.module)
    yield from map(load_file, dict.fromkeys(file.expanduser().resolve() for file in files))


def import_adapter(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:  # an adapter may be the user's own code and can fail in any way
        raise cannot_be_imported(name, error) from error


def load_file(file: Path) -> ModuleType:
    """Import a file from any folder once, under a module name that is derived from its path."""
    path = file.resolve()
    name = f"{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    if path.suffix != ".py" or not path.is_file():
        raise AdapterError(f"--adapter {file}: expected an existing Python file, with a name that ends in .py.")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise cannot_be_imported(str(file), error) from error
    return module


def cannot_be_imported(name: str, error: BaseException) -> AdapterError:
    return AdapterError(
        f"the adapter {name} cannot be imported: {type(error).__name__}: {error}\n  Correct the file, or leave it out."
    )


def adapter_of(module: ModuleType) -> Adapter:
    """Return the ADAPTER of a module, after checking that its name can be used in --datasets."""
    adapter = getattr(module, "ADAPTER", None)
    where = module.__file__ or module.__name__
    if not isinstance(adapter, Adapter):
        raise AdapterError(
            f"the adapter {where} does not define ADAPTER.\n"
            "  Every adapter file ends with ADAPTER = Adapter(...). CONTRIBUTING.md shows an example."
        )
    if set(adapter.name) & set("=:@ "):
        raise AdapterError(
            f"the adapter {where}: its name '{adapter.name}' contains one of = : @ or a space, which separate "
            "the parts of --datasets ADAPTER[=SOURCE][:SPLIT][@FRACTION].\n  Rename the adapter."
        )
    try:
        inspect.signature(adapter.convert).bind({}, AdapterOptions())
    except (TypeError, ValueError) as error:  # otherwise every row would be counted as malformed
        raise AdapterError(
            f"the adapter {where}: convert cannot be called with a row and options: {error}.\n"
            "  Expected def convert(row: Row, options: AdapterOptions)."
        ) from error
    return adapter
