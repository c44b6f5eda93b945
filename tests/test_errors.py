"""Tests of dpo.errors: the errors that a user can cause."""

import pytest

from dpo import errors


@pytest.mark.parametrize("name", [name for name in errors.__all__ if name.endswith("Error")])
def test_every_error_is_a_dpo_error_with_exit_code_2(name: str) -> None:
    error = getattr(errors, name)
    assert issubclass(error, errors.DPOError)
    assert error.exit_code == 2


def test_an_unknown_name_is_reported_with_similar_and_available_names() -> None:
    assert errors.unknown_name("adapter", "nectr", ["nectar", "orca"]) == (
        "unknown adapter 'nectr'. Did you mean nectar?\n  Available: nectar, orca"
    )
    assert errors.unknown_name("adapter", "xyz", ["orca", "nectar"]) == (
        "unknown adapter 'xyz'.\n  Available: nectar, orca"
    )


def test_a_long_list_is_shortened_to_the_names_to_show() -> None:
    assert errors.unknown_name("flag", "xyz", ["c", "a", "b"], shown=["b", "a"]) == (
        "unknown flag 'xyz'.\n  Available: a, b, and 1 more"
    )
