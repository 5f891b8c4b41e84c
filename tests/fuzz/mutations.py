"""Mutations of bytes, and of JSON by its structure."""

import json
import re
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


def claim(content: bytes, random: Random) -> bytes:
    """Put a huge or a small number where a length or a count may stand, in either order of bytes."""
    width, value = random.choice((2, 4, 8)), random.choice((0, 1, 2**15, 2**31 - 1, 2**31, 2**63 - 1, 2**64 - 1))
    start = random.choice((random.randrange(min(len(content), 64)), random.randrange(len(content))))
    number = (value % 256**width).to_bytes(width, random.choice(("big", "little")))
    return content[:start] + number + content[start + width :]


def turn_words(content: bytes, random: Random) -> bytes:
    """Write all words of two, four or eight bytes in the other order, of all or of the first 64."""
    width, stop = random.choice((2, 4, 8)), random.choice((64, len(content)))
    words = [content[at : at + width][::-1] for at in range(0, min(stop, len(content)), width)]
    return b"".join(words) + content[stop:]


def swap(content: bytes, random: Random) -> bytes:
    """Let two stretches of one length change places."""
    length = random.randrange(1, max(2, min(4096, len(content) // 2)))
    first = random.randrange(max(1, len(content) - 2 * length + 1))
    second = random.randrange(first + length, max(first + length + 1, len(content) - length + 1))
    one, other = content[first : first + length], content[second : second + length]
    return content[:first] + other + content[first + length : second] + one + content[second + length :]


def recode(content: bytes, random: Random) -> bytes:
    """Write it as an editor of another system would: a mark of byte order, other ends of lines, a byte of zero."""
    marks = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\x00")
    changed = random.choice((content, content.replace(b"\n", b"\r\n"), content.replace(b"\n", b"\r")))
    return random.choice((random.choice(marks) + changed, changed + random.choice((b"\x1a", b"\x00", b"\n\n", b" "))))


def cut_at_a_border(content: bytes, random: Random) -> bytes:
    """Cut the end off where a part of the file ends: after a bracket, a comma, a line, or a multiple of 512 or 784."""
    ends = [at + 1 for at, byte in enumerate(content) if byte in b'{}[],:\n"']
    borders = [at for at in (4, 8, 16, 512, 784, 1024, 3074) if at < len(content)]
    return content[: random.choice(ends[:4000] + 50 * borders + [len(content) - 1])]


def double(content: bytes, random: Random) -> bytes:
    """Say all of it twice, or a half of it again."""
    return content + random.choice((content, content[: len(content) // 2], content[len(content) // 2 :]))


BYTES: tuple[Mutation, ...] = (flip, flip, truncate, remove, insert, repeat, blank)
BYTES += (claim, claim, turn_words, swap, swap, recode, cut_at_a_border, cut_at_a_border, double)


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


def swap_members(content: bytes, random: Random) -> bytes:
    """Let the values of two places change places."""
    document = json.loads(content)
    places = list(_places(document))
    (one, first), (other, second) = random.choice(places), random.choice(places)
    one[first], other[second] = json.loads(json.dumps(other[second])), json.loads(json.dumps(one[first]))
    return json.dumps(document).encode()


def say_an_inner_key_twice(content: bytes, random: Random) -> bytes:
    """Say a key of any object twice, with the same value or another."""
    text = json.dumps(json.loads(content))
    members = list(re.finditer(r'"[^"]*": (true|false|null|-?[0-9.e+-]+|"[^"]*")', text))
    found = random.choice(members)
    value = random.choice((found[1], json.dumps(random.choice(VALUES))))
    return f"{text[: found.start()]}{found[0].split(': ')[0]}: {value}, {text[found.start() :]}".encode()


def write_otherwise(content: bytes, random: Random) -> bytes:
    """Write the same as other dialects of JSON do: comments, hanging commas, single quotes, UTF-16, two documents."""
    text = json.dumps(json.loads(content), indent=random.choice((None, 1)))
    forms = (
        f"// a comment\n{text}", f"{text[:-1]},{text[-1]}", text.replace('"', "'"), text + text, f"[{text}]",
        text.replace("null", "None").replace("true", "True"), re.sub(r"\b([0-9]+)\b", r"0\1", text),
        re.sub(r"\b([0-9]+)\b", r"\1.0", text), re.sub(r"\b([0-9]+)\b", r"\1e0", text), text.replace('"', '\\"'),
        re.sub(r"\b([0-9]+)\b", r'"\1"', text), re.sub(r"([a-z])", lambda one: f"\\u{ord(one[1]):04x}", text, count=3),
    )  # fmt: skip
    encoding = random.choice(("utf-8", "utf-8", "utf-8", "utf-16", "utf-32", "utf-8-sig"))
    return random.choice(forms).encode(encoding)


JSON: tuple[Mutation, ...] = (replace_value, replace_value, replace_value, nudge, nudge, remove_entry)
JSON += (rename_key, say_a_key_twice, put_text, swap_members, say_an_inner_key_twice, write_otherwise, *BYTES)


def _places(document: Any) -> Iterator[tuple[Any, Any]]:
    inside = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in list(inside):
        yield document, key
        if isinstance(value, (dict, list)):
            yield from _places(value)
