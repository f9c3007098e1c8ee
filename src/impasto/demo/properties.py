"""Reads what an ONNX file says of itself, without ONNX Runtime or the package onnx."""

from collections.abc import Iterator
from pathlib import Path

# Numbers of fields in ONNX's messages: of a ModelProto, of a GraphProto, and of an entry of
# `metadata_props`.
_GRAPH, _PROPERTIES = 7, 14
_NODE = 1
_KEY, _VALUE = 1, 2
_FIXED = {1: 8, 5: 4}  # bytes of a value, by its protobuf wire type


def read_properties(path: Path) -> dict[str, str]:
    """Return `metadata_props` of an ONNX file.

    Raises:
        ValueError: the file is cut off, or not an ONNX file with a graph.
    """
    found: dict[str, str] = {}
    nodes = 0
    try:
        for number, value in _fields(memoryview(path.read_bytes())):
            if number == _GRAPH:
                nodes += sum(inner == _NODE for inner, _ in _fields(value))
            elif number == _PROPERTIES:
                entry = {key: bytes(text).decode() for key, text in _fields(value)}
                found[entry[_KEY]] = entry.get(_VALUE, "")
    except (IndexError, KeyError, UnicodeDecodeError, _NotProtobuf):
        nodes = 0
    if not nodes:
        raise ValueError(f"{path}: damaged, or not an ONNX file")
    return found


class _NotProtobuf(Exception):
    """Bytes that are no protobuf message."""


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield number and bytes of each field of a protobuf message; of a varint, no bytes."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind, length = tag % 8, 0
        if kind == 0:
            _, at = _varint(message, at)
        elif kind == 2:
            length, at = _varint(message, at)
        elif kind in _FIXED:
            length = _FIXED[kind]
        else:
            raise _NotProtobuf
        if at + length > len(message):
            raise _NotProtobuf
        yield tag // 8, message[at : at + length]
        at += length


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """Return the varint at a position, and the position after it; IndexError if it is cut off."""
    value = 0
    for shift in range(0, 70, 7):  # a varint has ten bytes at most
        value |= (message[at] & 127) << shift
        at += 1
        if message[at - 1] < 128:
            return value, at
    raise _NotProtobuf
