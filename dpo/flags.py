"""Command-line flags from pydantic fields, and the same flags read from a YAML file."""

__all__ = [
    "TRUE",
    "FlagParser",
    "add_fields",
    "check_flags",
    "flag_names",
    "flags_to_argv",
    "parse_bool",
    "read_fields",
    "read_yaml",
    "switch_names",
    "training_program",
]

import argparse
import json
import sys
import types
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from dpo.errors import ConfigError, unknown_name
from dpo.folders import similar_path
from dpo.shipped import find_file

Fields = TypeVar("Fields", bound=BaseModel)

TRUE, FALSE = ("true", "yes", "1", "on"), ("false", "no", "0", "off")


class FlagParser(argparse.ArgumentParser):
    """An argument parser that raises a short ConfigError instead of printing its usage."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}\n  {self.prog} --help lists every flag.")


def training_program() -> str:
    """What users call the program that trains: main.py if this process runs it, otherwise dpo train."""
    return "main.py" if Path(sys.argv[0]).name == "main.py" else "dpo train"


def flag_names(parser: argparse.ArgumentParser) -> list[str]:
    """Return the long flags of a parser, without dashes in front; of --max_length and --max-length only max_length."""
    options = [option for action in parser._actions for option in action.option_strings if option.startswith("--")]
    return [option[2:] for option in options if "-" not in option[2:]]


def switch_names(parser: argparse.ArgumentParser) -> list[str]:
    """Return the names in flag_names whose flags take no value and are true if present."""
    takes_none = {option for action in parser._actions if action.nargs == 0 for option in action.option_strings}
    return [name for name in flag_names(parser) if f"--{name}" in takes_none]


def check_flags(
    parser: argparse.ArgumentParser, unknown: Collection[str], *, shown: Collection[str] | None = None
) -> None:
    """Check that parse_known_args left no words over.

    Args:
        parser: The parser that parsed the command line.
        unknown: The words that the parser did not recognize.
        shown: The names to list in an error, if all of them are too many to read. Default: all.

    Raises:
        ConfigError: if there is such a word. The message names similar flags and lists the known ones.
    """
    for word in unknown:
        if word.startswith("--"):
            known = [f"--{name}" for name in flag_names(parser)]
            listed = None if shown is None else [f"--{name}" for name in shown]
            message = unknown_name("flag", word, known, shown=listed)
            raise ConfigError(f"{message}\n  {parser.prog} --help explains them.")
        raise ConfigError(f"unexpected word '{word}': every value must follow a flag, as in --datasets nectar")


def add_fields(
    parser: argparse.ArgumentParser, model: type[BaseModel], title: str, *, leave_out: Collection[str] = ()
) -> None:
    """Add one flag to a parser for each field of a pydantic model, with its description and default as help."""
    group = parser.add_argument_group(title, model.__doc__)
    for name, field in model.model_fields.items():
        if name in leave_out:
            continue
        default = field.get_default(call_default_factory=True)
        shown = "" if default in (None, ()) else f" Default: {default}."
        help_text = f"{field.description or ''}{shown}".replace("%", "%%")
        group.add_argument(f"--{name}", default=default, help=help_text, **argument_form(field.annotation))


def read_fields(model: type[Fields], values: Mapping[str, Any]) -> Fields:
    """Build a pydantic model from the values of its flags.

    Raises:
        ConfigError: if a value has the wrong type or is out of range.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        flag = ".".join(map(str, first["loc"]))
        raise ConfigError(f"--{flag}: {first['msg']}, found {first['input']!r}") from error


def argument_form(annotation: Any) -> dict[str, Any]:
    """Return argparse's options for a type: bool, a Literal, a tuple or a plain type, each possibly or None."""
    if get_origin(annotation) in (Union, types.UnionType):
        annotation = next(option for option in get_args(annotation) if option is not type(None))
    if annotation is bool:
        return {"type": parse_bool, "nargs": "?", "const": True, "metavar": "BOOL"}
    if get_origin(annotation) is Literal:
        return {"choices": get_args(annotation)}
    if get_origin(annotation) is tuple:
        return {"nargs": "*", "type": get_args(annotation)[0], "metavar": "VALUE"}
    return {"type": annotation, "metavar": annotation.__name__.upper()}


def parse_bool(text: str) -> bool:
    if text.lower() in TRUE + FALSE:
        return text.lower() in TRUE
    raise argparse.ArgumentTypeError(f"expected true or false, found '{text}'")


class UniqueKeys(yaml.SafeLoader):
    """PyYAML's safe loader, with an error for a repeated key. PyYAML silently takes the last value."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode) and seen.setdefault(key.value, line) != line:
                raise yaml.YAMLError(f"the key '{key.value}' is repeated, in lines {seen[key.value]} and {line}")
        return super().construct_mapping(node, deep)


def read_yaml(file: Path) -> dict[Any, Any]:
    """Read the mapping in a YAML file.

    Raises:
        ConfigError: if the file is missing, is not valid YAML, or is not a mapping.
    """
    try:
        content = yaml.load(find_file(file).read_text(encoding="utf-8"), UniqueKeys)
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}.{similar_path(file)}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{file}: expected 'name: value' lines, found {type(content).__name__}")
    return content


def flags_to_argv(
    flags: Mapping[Any, Any],
    known: Collection[str],
    *,
    where: str,
    shown: Collection[str] | None = None,
    switches: Collection[str] = (),
) -> list[str]:
    """Turn flags from a YAML file into the words of a command line.

    Args:
        flags: Values by name. A list becomes several values; null and [] leave the flag out.
        known: Names of all flags.
        where: The place where the flags were written, with which an error message begins.
        shown: The names to list in an error. Default: all.
        switches: Names of the flags that take no value. They are added if their value is true.

    Raises:
        ConfigError: if a flag is unknown, or the value of a switch is neither true nor false.
    """
    for name in flags:
        if name not in known or name == "config":
            raise ConfigError(f"{where}: {unknown_name('key', str(name), known, shown=shown)}")
    argv = []
    for name, value in flags.items():
        argv += switch_to_argv(name, value, where=where) if name in switches else flag_to_argv(name, value)
    return argv


def switch_to_argv(name: str, value: Any, *, where: str) -> list[str]:
    """Return the bare flag for true, nothing for false and null. The quoted text "no" is false as well."""
    try:
        return [f"--{name}"] if value is not None and parse_bool(yaml_text(value)) else []
    except argparse.ArgumentTypeError as error:
        raise ConfigError(f"{where}: {name}: {error}") from error


def flag_to_argv(name: str, value: Any) -> list[str]:
    """Return the words of one flag: several values for a list, nothing for null and []."""
    if isinstance(value, list):
        return [f"--{name}", *map(yaml_text, value)] if value else []
    if value is False and name.endswith("_strategy"):
        return [f"--{name}=no"]  # YAML reads an unquoted no as false
    return [] if value is None else [f"--{name}={yaml_text(value)}"]


def yaml_text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return json.dumps(value) if isinstance(value, dict) else str(value)
