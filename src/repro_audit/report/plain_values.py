"""Dataclasses of `model` as JSON values and back, field by field under their own names."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from repro_audit.model import Json

_T = TypeVar("_T")


def to_plain(value: Any) -> Json:
    """A value of the model as JSON has it: an object for a dataclass, a list for a tuple."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(value[key]) for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    return value


def from_plain(cls: type[_T], value: Json) -> _T:
    """The dataclass that `to_plain` made `value` of; fields that it does not know are passed over.

    Raises KeyError, TypeError or ValueError where it is not one.
    """
    if not isinstance(value, Mapping):
        raise TypeError(f"{type(value).__name__} where there should be an object")
    hints: dict[str, Any] = _hints(cls)  # type: ignore[arg-type]
    known = {name: _made(hint, value[name]) for name, hint in hints.items()}
    return cls(**known)


@cache
def _hints(cls: Any) -> dict[str, Any]:
    return get_type_hints(cls)


def _made(hint: Any, value: Json) -> Any:
    origin, parts = get_origin(hint), get_args(hint)
    if origin in {Union, types.UnionType}:
        if value is None and type(None) in parts:
            return None
        (hint,) = (part for part in parts if part is not type(None))
        return _made(hint, value)
    if origin is tuple:
        if not isinstance(value, list):
            raise TypeError(f"{type(value).__name__} where there should be a list")
        of = parts[:1] * len(value) if parts[-1] is Ellipsis else parts
        return tuple(_made(part, item) for part, item in zip(of, value, strict=True))
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        return {key: _made(parts[1], item) for key, item in value.items()}
    if is_dataclass(hint):
        return from_plain(hint, value)  # type: ignore[arg-type]
    # Integers beyond 2^53 are strings, as are floats that are not finite.
    if hint in {int, float} and isinstance(value, int | float | str):
        return hint(value)
    if isinstance(hint, type) and not isinstance(value, hint):
        raise TypeError(f"{type(value).__name__} where there should be a {hint.__name__}")
    return value
