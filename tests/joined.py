"""Words and emoji that are written with zero-width joiners, and texts in which they hide."""

from __future__ import annotations

JOINED = [
    ("Persian: I want", "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"),
    ("Persian, in a sentence", "\u06af\u0632\u0627\u0631\u0634 \u0645\u06cc\u200c\u0646\u0648\u06cc\u0633\u0645 2026"),
    ("Hindi: half a letter", "\u0915\u094d\u200d\u0937"),
    ("Hindi: a visible virama", "\u0915\u094d\u200c\u0937"),
    ("Malayalam: a chillu", "\u0d05\u0d35\u0d28\u0d4d\u200d"),
    ("Sinhala: Sri", "\u0dc1\u0dca\u200d\u0dbb\u0dd3"),
    ("a family", "Trip of the \U0001f468\u200d\U0001f469\u200d\U0001f467"),
    ("a profession, with a skin", "\U0001f469\U0001f3fd\u200d\U0001f52c"),
    ("with emoji style", "\u2764\ufe0f\u200d\U0001f525 \U0001f937\u200d\u2642\ufe0f"),
    ("shaking a head", "\U0001f642\u200d\u2194\ufe0f"),
]
MISJOINED = [
    "pay\u200dpal",
    "pay\u200cpal",
    "\u200dpay",
    "pay\u200c",
    "a\u200d\U0001f469",
    "\U0001f469\u200da",
    "\U0001f469\u200d\u200d\U0001f469",
    "\u0645\u06cc\u200c\u200c\u062e",
    "\u0627\u200c\u0628",  # alef joins nothing after it
    "1\u200d2",
    "\u0430\u200c\u0440",
]
