"""PURE: the text of a YAML scalar -> value, by YAML 1.2's core schema, and which characters no text may contain.

PyYAML resolves YAML 1.1: `no` is false, `1e-4` is a string, `12:30` is 750. This module closes that, in both directions.
Source: YAML 1.2.2, section 10.3.2.
"""

import math
import re
import unicodedata

FLOAT = re.compile(
    r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
)
_NULL = re.compile(r"~|null|Null|NULL|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_MAX_INTEGER_TEXT = 20

# Right-to-left overrides and isolates reorder what a reviewer sees; the others are invisible.
BIDIRECTIONAL = frozenset(chr(c) for c in (*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x061C))
_INVISIBLE = frozenset(chr(c) for c in (0x00AD, 0x180E, *range(0x200B, 0x2010), *range(0x2060, 0x2065), 0xFEFF))
HIDDEN_LINE_BREAKS = frozenset("\x85\u2028\u2029")
"""YAML 1.1 ends a line at these, most editors do not: a comment could hide a field."""


def plain_value(text: str) -> str | int | float | bool | None:
    """The value of a plain (unquoted) scalar.

    Raises:
        ValueError: a number that is not finite, or does not fit 64 bits.
    """
    if _NULL.fullmatch(text):
        return None
    if _BOOL.fullmatch(text):
        return text.lower() == "true"
    if INTEGER.fullmatch(text):
        return _integer(text)
    if FLOAT.fullmatch(text):
        return _real(text)
    return text


def _integer(text: str) -> int:
    # Python converts long digit strings slowly, and refuses very long ones with a message of its own.
    if len(text) > _MAX_INTEGER_TEXT or abs(number := int(text, 0 if text[:2] in {"0o", "0x"} else 10)) > 2**63 - 1:
        raise ValueError(f"{text[:24]} does not fit a 64-bit integer")
    return number


def _real(text: str) -> float:
    number = float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    if not math.isfinite(number):
        raise ValueError(f"{text[:24]} is not a finite number")
    return number


def joined_surrogates(text: str) -> str:
    """JSON escapes a character beyond U+FFFF as two halves, which PyYAML leaves apart; a lone half stays one."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


def text_problem(text: str) -> str | None:
    """What is wrong with the characters of a text; None when nothing is."""
    for character in text:
        category = unicodedata.category(character)
        if character in BIDIRECTIONAL or category == "Cs" or (category == "Cc" and character not in "\t\n\r"):
            return hidden_character(character)
    return None


def visible(text: str) -> str:
    """A text of somebody else's with every character that would act on a terminal, or deceive its reader, written out."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_visible(character) for character in text)


def _visible(character: str) -> str:
    if character in "\t\n" or character.isprintable():
        return character if character not in BIDIRECTIONAL else f"\\u{ord(character):04x}"
    is_known = character == " " or unicodedata.category(character) in {"Zs", "Cn"}
    if is_known and character not in HIDDEN_LINE_BREAKS:
        return character
    return f"\\x{ord(character):02x}" if ord(character) < 0x100 else f"\\u{ord(character):04x}"


def key_problem(key: str) -> str | None:
    """What is wrong with a key: only what is seen, and what can be told apart, may name a field."""
    for character in key:
        category = unicodedata.category(character)
        if character in BIDIRECTIONAL | _INVISIBLE or category in {"Cc", "Cs", "Co"}:
            return hidden_character(character)
    if not key.isascii():
        return "contains a letter outside ASCII that may only look like the right one; retype it"
    return None


def hidden_character(character: str) -> str:
    """Says that a character has to go."""
    return f"contains U+{ord(character):04X}, which is invisible or reorders what is shown; remove it"
