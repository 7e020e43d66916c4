"""Values of a column of pyarrow's as Python's, one by one where a column cannot be converted as a whole.

Times are ISO 8601, with as many digits as Python writes, or nine where there are nanoseconds.
"""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np

from .base import RowError
from .convert import note
from .files import pyarrow
from .values import UnconvertibleError, replace

_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}  # units of a second
# Errors of pyarrow, and of the codecs, datetime and packages of time zones that it calls.
_FAILURES = (ValueError, TypeError, LookupError, ArithmeticError, RuntimeError, AttributeError, OSError)
_EPOCH = datetime.datetime(1970, 1, 1)
_DAY = 86_400  # seconds


def values(column: Any, name: str, errors: dict[int, RowError]) -> list[Any]:
    """Return a column's values; one that cannot be converted is None, and an error of its row.

    A float32 is the shortest number, 0.1 instead of 0.10000000149011612.
    """
    if not _has_nanoseconds(column.type):
        try:
            return _short(column.type, column.to_pylist())
        except _FAILURES:  # then one by one
            pass
    result = []
    for index, scalar in enumerate(column):
        try:
            result.append(_value(scalar))
        except _FAILURES as error:
            if isinstance(error, UnicodeDecodeError):
                error = UnconvertibleError("not UTF-8")
            note(errors, index, name, error, _content(scalar))
            result.append(None)
    return _short(column.type, result)


def _short(kind: Any, items: list[Any]) -> list[Any]:
    single = {"float": np.float32, "halffloat": np.float16}.get(str(kind))
    return items if single is None else [None if item is None else float(str(single(item))) for item in items]


def _has_nanoseconds(kind: Any) -> bool:
    """Return whether a type has times in nanoseconds, which pyarrow gives as pandas' types where pandas is installed."""
    if getattr(kind, "unit", None) == "ns":
        return True
    inner = [kind.field(index).type for index in range(kind.num_fields)]
    inner += [getattr(kind, each) for each in ("value_type", "storage_type") if hasattr(kind, each)]
    return any(map(_has_nanoseconds, inner))


def _value(scalar: Any) -> Any:
    """Return a scalar's value, as ``as_py`` does, with times as ISO 8601."""
    arrow = pyarrow("read parquet")
    types, kind = arrow.types, scalar.type
    if not scalar.is_valid:
        return None
    if types.is_timestamp(kind):
        return timestamp(scalar.value, kind.unit, _zone(kind))
    if types.is_time(kind):
        return time(scalar.value, kind.unit)
    if types.is_duration(kind):
        return duration(scalar.value, kind.unit)
    if types.is_date32(kind):
        return date(scalar.value)
    if types.is_dictionary(kind) or (isinstance(kind, arrow.BaseExtensionType) and _has_nanoseconds(kind)):
        return _value(scalar.value)
    if types.is_struct(kind):
        names = [replace(field.name) for field in kind]
        if len(set(names)) < len(names):
            raise UnconvertibleError("a struct with two fields of one name")
        return {name: _value(scalar[index]) for index, name in enumerate(names)}
    if types.is_map(kind):
        return [[_value(entry[0]), _value(entry[1])] for entry in scalar.values]
    if types.is_nested(kind) and not types.is_union(kind):
        return [_value(each) for each in scalar.values]
    return scalar.as_py()


def _zone(kind: Any) -> datetime.tzinfo | None:
    """Return a type's time zone; UnconvertibleError if it is not known here."""
    if kind.tz is None:
        return None
    try:
        zone: datetime.tzinfo = pyarrow("read parquet").scalar(0, kind).as_py().tzinfo
    except _FAILURES:
        raise UnconvertibleError(f"in the time zone {kind.tz!r}, which is not known here") from None
    return zone


def _content(scalar: Any) -> Any:
    """Return what the list of errors shows of a value: bytes or a number, or nothing."""
    try:
        content = scalar.as_buffer().to_pybytes() if hasattr(scalar, "as_buffer") else scalar.value
    except _FAILURES:
        return None
    return content if isinstance(content, (bytes, int)) else None


def timestamp(value: int, unit: str, zone: datetime.tzinfo | None) -> str:
    """Write a time since 1970.

    Example:
        >>> timestamp(1700000000123456789, "ns", datetime.UTC)
        '2023-11-14T22:13:20.123456789+00:00'
    """
    seconds, fraction = _split(value, unit)
    try:
        moment = _EPOCH + datetime.timedelta(seconds=seconds)
        if zone is not None:
            moment = moment.replace(tzinfo=datetime.UTC).astimezone(zone)
    except OverflowError:
        raise UnconvertibleError("beyond the years 1 to 9999") from None
    day = moment.replace(tzinfo=None).isoformat()
    return day + fraction + moment.isoformat()[len(day) :]


def date(days: int) -> str:
    """Write a day since 1970."""
    return timestamp(days * _DAY, "s", None)[: len("1970-01-01")]


def time(value: int, unit: str) -> str:
    """Write a time of a day.

    Example:
        >>> time(123, "ns"), time(45_000, "ms")
        ('00:00:00.000000123', '00:00:45')
    """
    seconds, fraction = _split(value, unit)
    if not 0 <= seconds < _DAY:
        raise UnconvertibleError("not a time of a day")
    return (_EPOCH + datetime.timedelta(seconds=seconds)).time().isoformat() + fraction


def duration(value: int, unit: str) -> str:
    """Write a duration, as Python does.

    Example:
        >>> duration(86_400_000_000_123, "ns")
        '1 day, 0:00:00.000000123'
    """
    seconds, fraction = _split(value, unit)
    try:
        return f"{datetime.timedelta(seconds=seconds)}{fraction}"
    except OverflowError:
        raise UnconvertibleError("longer than 2.7 million years") from None


def _split(value: int, unit: str) -> tuple[int, str]:
    """Return whole seconds, and the digits after them."""
    seconds, rest = divmod(value, _SECOND[unit])
    nanoseconds = rest * (_SECOND["ns"] // _SECOND[unit])
    if nanoseconds % 1000:
        return seconds, f".{nanoseconds:09d}"
    return seconds, f".{nanoseconds // 1000:06d}" if nanoseconds else ""
