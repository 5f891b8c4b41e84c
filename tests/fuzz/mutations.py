"""Mutations of bytes, and of JSON by its structure."""

import json
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

Mutation = Callable[[bytes, Random], bytes]
VALUES = (
    None, True, False, 0, -1, 1, 2**64, -(10**30), 10**18, 0.5, 1e308, "", "a", "0.5", "../x", "/evil", ".x", "a\nb",
    "\x1b[31mred", "[/red]", "=1+1", "\ud800", "meta", "cuda:999", "nope:est", "os:system", "a" * 5000, [], {}, [None],
    ["0.9", "0.99"], [[]], {"name": "digits"}, {"name": 3}, {"float": "nan"},
)  # fmt: skip


def flip(content: bytes, random: Random) -> bytes:
    """Change some bytes, one or several."""
    changed = bytearray(content)
    for _ in range(random.choice((1, 1, 1, 2, 8))):
        changed[random.randrange(len(changed))] ^= random.randrange(1, 256)
    return bytes(changed)


def truncate(content: bytes, random: Random) -> bytes:
    """Cut the end off."""
    return content[: random.randrange(len(content))]


def remove(content: bytes, random: Random) -> bytes:
    """Take some bytes out."""
    start = random.randrange(len(content))
    return content[:start] + content[start + random.randrange(1, 64) :]


def insert(content: bytes, random: Random) -> bytes:
    """Put some bytes in."""
    start = random.randrange(len(content))
    return content[:start] + random.randbytes(random.randrange(1, 64)) + content[start:]


def repeat(content: bytes, random: Random) -> bytes:
    """Say some bytes twice."""
    start = random.randrange(len(content))
    stop = start + random.randrange(1, 600)
    return content[:stop] + content[start:]


def blank(content: bytes, random: Random) -> bytes:
    """Overwrite some bytes with zeros."""
    start = random.randrange(len(content))
    stop = min(len(content), start + random.randrange(1, 600))
    return content[:start] + bytes(stop - start) + content[stop:]


BYTES: tuple[Mutation, ...] = (flip, flip, truncate, remove, insert, repeat, blank)


def replace_value(content: bytes, random: Random) -> bytes:
    """Put another value at some place."""
    document = json.loads(content)
    where, key = random.choice(list(_places(document)))
    where[key] = random.choice(VALUES)
    return json.dumps(document).encode()


def remove_entry(content: bytes, random: Random) -> bytes:
    """Take a key or an element away."""
    document = json.loads(content)
    where, key = random.choice(list(_places(document)))
    del where[key]
    return json.dumps(document).encode()


def rename_key(content: bytes, random: Random) -> bytes:
    """Call a key otherwise."""
    document = json.loads(content)
    objects = [(where, key) for where, key in _places(document) if isinstance(where, dict)]
    where, key = random.choice(objects)
    where[random.choice(("", "name", "x", f"{key}s", "\x1b[0m"))] = where.pop(key)
    return json.dumps(document).encode()


def nudge(content: bytes, random: Random) -> bytes:
    """Change a number a little: what is read is another file of the same kind."""
    document = json.loads(content)
    numbers = [(where, key) for where, key in _places(document) if type(where[key]) in (int, float)]
    where, key = random.choice(numbers)
    where[key] = random.choice((where[key] + 1, where[key] * 2, where[key] / 3, -where[key]))
    return json.dumps(document).encode()


def say_a_key_twice(content: bytes, random: Random) -> bytes:
    """Put a second value of a key of the outermost object first."""
    key = random.choice(list(json.loads(content)))
    text = json.dumps(json.loads(content))
    return f"{{{json.dumps(key)}: {json.dumps(random.choice(VALUES))}, {text[1:]}".encode()


def put_text(content: bytes, random: Random) -> bytes:
    """Put JSON that no value of Python is written as, at some place."""
    document = json.loads(content)
    where, key = random.choice(list(_places(document)))
    where[key] = "@here@"
    found = random.choice(("NaN", "Infinity", "9" * 5000, "[" * 10**5 + "]" * 10**5, "[" * 70 + "]" * 70, "1e999", ""))
    return json.dumps(document).replace('"@here@"', found).encode()


JSON: tuple[Mutation, ...] = (replace_value, replace_value, replace_value, nudge, nudge, remove_entry)
JSON += (rename_key, say_a_key_twice, put_text, *BYTES)


def _places(document: Any) -> Iterator[tuple[Any, Any]]:
    inside = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in list(inside):
        yield document, key
        if isinstance(value, (dict, list)):
            yield from _places(value)
