"""Adapters: one file per data set, found by being in this folder."""

__all__ = ["find_adapters", "get_adapter"]

import importlib
import pkgutil
from functools import cache

from dpo.adapters.base import Adapter
from dpo.errors import AdapterError, unknown_name


@cache
def find_adapters() -> dict[str, Adapter]:
    """Every adapter in this folder, by name, in alphabetical order.

    Raises:
        AdapterError: a file cannot be imported or defines no ADAPTER, or its name cannot be typed or is taken.
    """
    adapters: dict[str, Adapter] = {}
    for module_name in sorted(module.name for module in pkgutil.iter_modules(__path__)):
        if module_name == "base":
            continue
        try:
            module = importlib.import_module(f"{__name__}.{module_name}")
        except Exception as error:
            raise AdapterError(
                f"dpo/adapters/{module_name}.py cannot be imported: {type(error).__name__}: {error}"
            ) from error
        adapter = getattr(module, "ADAPTER", None)
        if not isinstance(adapter, Adapter):
            raise AdapterError(
                f"dpo/adapters/{module_name}.py defines no ADAPTER.\n"
                "  Every file there ends in ADAPTER = Adapter(...); CONTRIBUTING.md shows one."
            )
        if set(adapter.name) & set("=:@ "):
            raise AdapterError(
                f"dpo/adapters/{module_name}.py: the name '{adapter.name}' holds one of = : @ or a space, which "
                "separate the parts of --datasets ADAPTER[=SOURCE][:SPLIT][@FRACTION].\n  Rename it."
            )
        if adapter.name in adapters:
            raise AdapterError(
                f"two adapters are named '{adapter.name}': {adapters[adapter.name].convert.__module__} "
                f"and {module.__name__}.\n  Rename one of them."
            )
        adapters[adapter.name] = adapter
    return dict(sorted(adapters.items()))


def get_adapter(name: str) -> Adapter:
    """The adapter of that name.

    Raises:
        AdapterError: there is none; the message lists those there are.
    """
    adapters = find_adapters()
    if name not in adapters:
        raise AdapterError(unknown_name("adapter", name, adapters))
    return adapters[name]
