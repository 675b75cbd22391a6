"""Zero-width joiners, where a script or an emoji needs them: Persian, the scripts of India, families and professions.

Elsewhere they are as good as invisible, so that two texts that differ look alike. Where they may stand is RFC 5892,
appendices A.1 and A.2 (CONTEXTJ, by ``idna``), and for emoji between two of them (UTS #51).
"""

from __future__ import annotations

import unicodedata
from typing import Final

JOINERS: Final = "\u200c\u200d"
EMOJI_STYLE: Final = "\ufe0f"
_ZWJ: Final = "\u200d"
_AROUND: Final = 32
"""So far a rule looks: over marks that stand between a joiner and the letter that it joins."""
_MODIFIERS: Final = frozenset(chr(point) for point in range(0x1F3FB, 0x1F400))
_ARROWS: Final = frozenset("\u2194\u2195")
"""Emoji that Unicode counts as mathematical symbols: nods and shakes of the head are joined with them."""


def needed(before: str, char: str, after: str) -> bool:
    """Whether this joiner (or emoji style, U+FE0F) belongs between the two texts."""
    if char == EMOJI_STYLE:
        return _ends_in_emoji(before)
    if char == _ZWJ and _ends_in_emoji(before.rstrip(EMOJI_STYLE)) and _is_emoji(after[:1]):
        return True
    from idna.core import valid_contextj  # its tables take a moment to load, and few texts need them

    left = before[-_AROUND:]
    try:
        return valid_contextj(left + char + after[:_AROUND], len(left))
    except ValueError:  # a neighbour that has no name
        return False


def all_needed(text: str) -> bool:
    """Whether each joiner in the text stands where it is needed."""
    if text.isascii():
        return True
    return all(needed(text[:at], char, text[at + 1 :]) for at, char in enumerate(text) if char in JOINERS)


def _ends_in_emoji(text: str) -> bool:
    last = text[-1:]
    return _is_emoji(text[-2:-1]) if last in _MODIFIERS else _is_emoji(last)


def _is_emoji(char: str) -> bool:
    return char != "" and (unicodedata.category(char) == "So" or char in _ARROWS)
