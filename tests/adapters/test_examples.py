"""Tests that every adapter keeps the contract, with the checks of `dpo adapters --check`."""

import random
import sys

import pytest

from dpo.adapters import find_adapters
from dpo.adapters.base import Adapter, AdapterOptions
from dpo.data.adapter_checks import check_adapter
from dpo.data.conversion import convert_row
from dpo.data.malformed import mutate
from dpo.records import Drop

ADAPTERS = find_adapters()


def test_the_adapters_of_the_documentation_are_found() -> None:
    assert list(ADAPTERS) == sorted(ADAPTERS)
    assert {"nectar", "orca_dpo_pairs", "triplets", "ultrafeedback"} <= set(ADAPTERS)
    assert {"hh_rlhf", "shp", "stack_exchange", "ultrafeedback_raw", "argilla_ultrafeedback"} <= set(ADAPTERS)
    assert {"distilabel_orca", "openai_dpo", "sharegpt", "columns"} <= set(ADAPTERS)
    assert {"slim_orca", "open_orca", "alpaca", "ultrachat", "messages"} <= set(ADAPTERS)


@pytest.mark.parametrize("adapter", ADAPTERS.values(), ids=ADAPTERS)
class TestEveryAdapter:
    def test_it_keeps_the_contract(self, adapter: Adapter) -> None:
        assert check_adapter(adapter, num_malformed_rows=200_000 // len(ADAPTERS) + 1) == []

    @pytest.mark.long
    def test_it_keeps_the_contract_with_a_million_rows_in_total(self, adapter: Adapter) -> None:
        assert check_adapter(adapter, num_malformed_rows=1_000_000 // len(ADAPTERS) + 1) == []

    def test_mutated_rows_are_often_malformed(self, adapter: Adapter) -> None:
        """Otherwise the check of the contract with mutated rows would prove nothing."""
        generator = random.Random(0)
        rows = [mutate(generator.choice(adapter.examples)[0], generator) for _ in range(500)]
        outcomes = [candidate for row in rows for candidate in convert_row(row, adapter, AdapterOptions(pairing="all"))]
        assert sum(isinstance(candidate, Drop) for candidate in outcomes) > len(rows) / 5

    def test_its_docstring_names_the_data_set(self, adapter: Adapter) -> None:
        docstring = sys.modules[adapter.convert.__module__].__doc__ or ""
        if adapter.hub_id is not None and adapter.name != "triplets":
            assert docstring.startswith(f"{adapter.hub_id}: ")
        else:
            assert "=rows." in docstring or adapter.name == "triplets", "the docstring must show how to name a file"
