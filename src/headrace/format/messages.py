"""Messages: protobuf classes of schemas that are written in code. What a message means is left to who writes it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor

_KEPT: list[Any] = []


def message_class(file: descriptor_pb2.FileDescriptorProto, name: str) -> Any:
    """The class of the message `name` of a file, in a descriptor pool of its own: nothing else clashes with its names.

    The classes of its parts stay, too. Protobuf (upb) makes them when they are first used and finds them again in a
    table that doesn't hold on to them, so one that the garbage collector is clearing would be found by another thread,
    or by a finalizer, and used while it falls apart: a segmentation fault.
    """
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    _KEPT.extend(_classes(pool.FindFileByName(file.name).message_types_by_name.values()))
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{file.package}.{name}"))


def _classes(messages: Iterable[Descriptor]) -> Iterable[Any]:
    for message in messages:
        yield message_factory.GetMessageClass(message)
        yield from _classes(message.nested_types)
