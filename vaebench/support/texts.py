"""Texts that came from elsewhere: what may be a name, and how any text is shown without doing anything."""

import re

NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
LONGEST_NAME = 100
LONGEST_TEXT = 1000
LONGEST_SHOWN = 80


def shown(value: object) -> str:
    """A value's `repr` for a message, of at most 80 characters, without control characters.

    Returns:
        The text.

    >>> shown("a" * 1000)[-10:]
    'aaaaaaa...'
    """
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 256:
        return f"a number of {value.bit_length()} bits"
    text = escaped(repr(value))
    return text if len(text) <= LONGEST_SHOWN else f"{text[: LONGEST_SHOWN - 3]}..."


def escaped(text: str) -> str:
    r"""A text with whatever is not printable written as an escape: nothing in it moves a cursor or rings a bell.

    Returns:
        The text; line breaks and tabs become spaces.

    >>> print(escaped("red \x1b[31m\n"))
    red \x1b[31m
    """
    plain = re.sub(r"\s+", " ", text).strip()
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in plain)


def file_like_name(what: str, value: object) -> str:
    """Return a name that is safe as a file's: letters, digits and, inside, hyphens, underscores and dots.

    Raises:
        ValueError: if it is no such text, or is longer than 100 characters.

    >>> file_like_name("name of a study", "../x")
    Traceback (most recent call last):
        ...
    ValueError: The name of a study must be letters and digits with -, _ or . inside, at most 100, got '../x'.
    """
    if not isinstance(value, str) or not NAME.fullmatch(value) or len(value) > LONGEST_NAME:
        raise ValueError(
            f"The {what} must be letters and digits with -, _ or . inside, at most {LONGEST_NAME}, got {shown(value)}."
        )
    return value


def printable(what: str, value: object) -> str:
    r"""Return a text of one printable line.

    Raises:
        ValueError: if it is no text, empty, longer than 1,000 characters or has a character that is not printable.

    >>> printable("label", "K=1\x1b[0m")
    Traceback (most recent call last):
        ...
    ValueError: The label must be one line of printable text, at most 1000 characters, got 'K=1\x1b[0m'.
    """
    if not isinstance(value, str) or not value.strip() or not value.isprintable() or len(value) > LONGEST_TEXT:
        limit = f"at most {LONGEST_TEXT} characters"
        raise ValueError(f"The {what} must be one line of printable text, {limit}, got {shown(value)}.")
    return value


def sentence(trouble: BaseException) -> str:
    """What an exception says, as one line: of the operating system's, the file and what is wrong with it.

    Returns:
        The sentence, without control characters.

    >>> sentence(FileNotFoundError(2, "No such file or directory", "a.json"))
    "'a.json' cannot be used: No such file or directory."
    >>> sentence(OSError(28, "No space left on device"))
    'No space left on device.'
    """
    if isinstance(trouble, OSError) and trouble.strerror:
        file = f"{str(trouble.filename)!r} cannot be used: " if trouble.filename else ""
        return escaped(f"{file}{trouble.strerror}.")
    text = escaped(str(trouble)) or type(trouble).__name__
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}..."
