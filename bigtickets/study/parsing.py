"""From YAML values to dataclass fields: types, spelling, numbers that YAML reads as text."""

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from bigtickets.errors import InputError

T = TypeVar("T")


class _UniqueKeys(yaml.SafeLoader):
    """PyYAML keeps the last of two equal keys without a word; here they are an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} is not a word", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def load_yaml(path: Path, what: str = "a study", like: str = "study: my-study") -> dict[str, Any]:
    """Read a YAML mapping; InputError with the line if it does not parse."""
    try:
        value = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeys)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a folder; {what} is a YAML file") from None
    except (UnicodeDecodeError, OSError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
    except yaml.MarkedYAMLError as error:
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise InputError(f"{path}: not valid YAML{line}: {error.problem}") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not valid YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: {what} is a mapping of keys, like `{like}`")
    return value


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The remedy for a misspelt word: the nearest known one, or all of them."""
    known = list(known)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"


def known_keys(value: Any, known: Iterable[str], key: str) -> dict[str, Any]:
    """Check that `value` is a mapping with keys among `known`."""
    if not isinstance(value, dict):
        raise InputError(f"{key}: expected a mapping of keys, got {shown(value)}")
    known = list(known)
    for name in value:
        if name not in known:
            raise InputError(
                f"{key + '.' if key else ''}{name}: unknown key; {did_you_mean(name, known)}"
            )
    return value


def fill(cls: type[T], value: Mapping[str, Any] | None, key: str, base: T | None = None) -> T:
    """Make a dataclass from a mapping; `base` gives the values of keys that are not there."""
    hints = typing.get_type_hints(cls)
    names = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
    given = {
        name: convert(item, hints[name], f"{key}.{name}" if key else name)
        for name, item in known_keys({} if value is None else value, names, key).items()
    }
    return dataclasses.replace(base, **given) if base is not None else cls(**given)  # type: ignore[type-var]


def convert(value: Any, hint: Any, key: str) -> Any:
    """`value` as the type `hint`, or InputError naming `key`."""
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        return _convert_union(value, typing.get_args(hint), key)
    if origin is Literal:
        return _convert_choice(value, typing.get_args(hint), key)
    if origin is tuple:
        return _convert_list(value, typing.get_args(hint)[0], key)
    return {float: _number, int: _whole, bool: _truth, str: _text}[hint](value, key)


def _convert_union(value: Any, options: tuple[Any, ...], key: str) -> Any:
    if value is None and type(None) in options:
        return None
    options = tuple(o for o in options if o is not type(None))
    words = [w for o in options if typing.get_origin(o) is Literal for w in typing.get_args(o)]
    if value in words:
        return value
    plain = [o for o in options if typing.get_origin(o) is not Literal]
    if isinstance(value, str) and words and not _is_number(value):
        raise InputError(f"{key}: {shown(value)}; expected a number or {' or '.join(words)}")
    return convert(value, plain[0], key)


def _convert_choice(value: Any, words: tuple[Any, ...], key: str) -> Any:
    if value not in words:
        hint = did_you_mean(value, words) if isinstance(value, str) else f"known: {list(words)}"
        raise InputError(f"{key}: {shown(value)} is not one of its values; {hint}")
    return value


def _convert_list(value: Any, item_hint: Any, key: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise InputError(f"{key}: expected a list like [a, b], got {shown(value)}")
    return tuple(convert(item, item_hint, f"{key}[{i}]") for i, item in enumerate(value))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _number(value: Any, key: str) -> float:
    # PyYAML reads 2e-5 (no point) as text.
    if isinstance(value, str) and _is_number(value):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{key}: expected a number, got {shown(value)}")
    if value != value or value in (float("inf"), float("-inf")):
        raise InputError(f"{key}: {value} is not a finite number")
    return float(value)


def _whole(value: Any, key: str) -> int:
    number = _number(value, key)
    if number != int(number):
        raise InputError(f"{key}: expected a whole number, got {shown(value)}")
    return int(number)


def _truth(value: Any, key: str) -> bool:
    if not isinstance(value, bool):
        raise InputError(f"{key}: expected true or false, got {shown(value)}")
    return value


def _text(value: Any, key: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{key}: expected text, got {shown(value)}")
    return value


def shown(value: Any) -> str:
    """A value as it may stand in a one-line message."""
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
