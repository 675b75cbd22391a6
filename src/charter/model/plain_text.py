"""Text that strangers wrote, made safe to show to a person who decides by it.

What cannot be seen or turns the reading order around is taken out and counted, but for joiners that words need; letters
that pass for others are named; what is long is cut in the middle and says so. The result is plain text: nothing in it is
markup, and a door that renders Markdown puts it into :func:`fenced`.
"""

from __future__ import annotations

import re
import unicodedata

from charter.model.joiners import EMOJI_STYLE, JOINERS, needed

HEAD, TAIL = 1500, 400
HEAD_LINES, TAIL_LINES = 40, 10
_CONTINUED = "⏎\n│ "
_INVISIBLE_LETTERS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
_MAX_MARKS = 2
_JOINING = JOINERS + EMOJI_STYLE
_NEAR = 32
_WORD = re.compile(r"\w+")
_REMARK = re.compile(r"\[([^\]\n]*)\] ")
_CONFUSABLE_SCRIPTS = frozenset({"CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE", "COPTIC", "LISU", "GEORGIAN"})
# Letters outside Latin that are drawn like Latin ones; a word made of nothing else is taken for a Latin word.
_TWINS = frozenset(
    "аеорсухіјѕһԁԛԝӏвкмнтпгьъԍԏ" + "АВЕКМНОРСТУХЅІЈҺԌԚԜ" + "αορνικτυχϲϳ" + "ΑΒΕΖΗΙΚΜΝΟΡΤΥΧϹϺ" + "օոսհցքԼՕՏՍ"
)
_FAKE_LETTERS = ("MATHEMATICAL", "FULLWIDTH", "CIRCLED", "PARENTHESIZED", "SQUARED", "DOUBLE-STRUCK", "SCRIPT")


def plain(text: str, *, limit: int = HEAD + TAIL) -> str:
    """``text`` with nothing hidden in it, cut to about ``limit`` characters; findings stand in front in brackets.

    Line breaks stay visible as ``⏎`` with a bar before the next line, so that text cannot pass itself off as another field.
    Text that went through here before keeps its one bar a line: what a room has stored, a door may show again.
    """
    shown, notes = _cut(text.replace(_CONTINUED, "\n"), limit)
    shown, hidden = _without_hidden(shown)
    if hidden:
        notes.append(f"{hidden} hidden character{'s' if hidden > 1 else ''} taken out")
    if (twins := look_alikes(shown)) and not _remarked(shown):
        notes.append("look-alike letters in " + ", ".join(twins))
    shown = shown.replace("\n", _CONTINUED)
    return f"[{'; '.join(notes)}] {shown}" if notes else shown


def _remarked(text: str) -> bool:
    """Does the text already begin with the remark that its look-alikes deserve? Then it went through here before."""
    match = _REMARK.match(text)
    twins = look_alikes(text[match.end() :]) if match else []
    return match is not None and bool(twins) and match[1].endswith("look-alike letters in " + ", ".join(twins))


def one_line(text: str, *, limit: int = 80) -> str:
    """As :func:`plain`, for names and labels: one line, short, without remarks about what was cut."""
    shown = text if len(text) <= limit else text[: limit - 1] + "…"
    shown, hidden = _without_hidden(shown)
    shown = " ".join(shown.split())
    remarks = ["hidden characters taken out"] if hidden else []
    remarks += ["look-alike letters"] if look_alikes(shown) else []
    return f"{shown} [{'; '.join(remarks)}]" if remarks else shown


def fenced(text: str) -> str:
    """``text`` as a Markdown code block whose fence is longer than any run of backticks inside it."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def look_alikes(text: str) -> list[str]:
    """Up to three words in which letters pass for Latin ones, each with the code points; empty for honest text."""
    found: list[str] = []
    for word in _WORD.findall(text):
        if word.isascii() or len(found) == 3:
            continue
        if suspects := _suspects(word):
            points = " ".join(f"U+{ord(char):04X}" for char in suspects[:4])
            found.append(f"“{word[:40]}” ({points})")
    return found


def _suspects(word: str) -> list[str]:
    strange = [char for char in word if not char.isascii() and char.isalnum()]
    fakes = [char for char in strange if unicodedata.name(char, "").startswith(_FAKE_LETTERS)]
    if fakes:
        return fakes
    foreign = [char for char in strange if unicodedata.name(char, "").partition(" ")[0] in _CONFUSABLE_SCRIPTS]
    if not foreign:
        return []
    latin = any(char.isalpha() and unicodedata.name(char, "").startswith("LATIN") for char in word)
    if latin or all(char in _TWINS for char in word if char.isalpha()):
        return foreign
    return []


def _cut(text: str, limit: int) -> tuple[str, list[str]]:
    total, lines = len(text), text.count("\n") + 1
    notes: list[str] = []
    if total > limit:
        tail = min(TAIL, limit // 4)
        text = f"{text[: limit - tail]} …[{total - limit:,} characters not shown]… {text[-tail:]}"
        notes.append(f"cut: {total:,} characters in all")
    if text.count("\n") >= HEAD_LINES + TAIL_LINES:
        parts = text.split("\n")
        parts[HEAD_LINES:-TAIL_LINES] = [f"…[{len(parts) - HEAD_LINES - TAIL_LINES:,} lines not shown]…"]
        text = "\n".join(parts)
        notes = [f"cut: {total:,} characters in {lines:,} lines in all"]
    return text, notes


def _is_hidden(char: str) -> bool:
    # Cc, Cf (bidirectional and zero-width), Co, Cs, Cn; Zl and Zp; variation selectors; letters drawn as nothing.
    if char == "\n":
        return False
    category = unicodedata.category(char)
    if category[0] == "C" or category in ("Zl", "Zp") or char in _INVISIBLE_LETTERS:
        return True
    return "\ufe00" <= char <= "\ufe0f" or "\U000e0000" <= char <= "\U000e0fff"


def _without_hidden(text: str) -> tuple[str, int]:
    text = text.replace("\r\n", "\n").replace("\t", "    ")
    if text.isascii() and text.replace("\n", "").isprintable():
        return text, 0
    kept: list[str] = []
    hidden = marks = 0
    for at, char in enumerate(text):
        joins = char in _JOINING
        marks = marks + 1 if unicodedata.category(char) in ("Mn", "Me") and not joins else marks * joins
        # What stands before is looked for among what is kept: nothing joins a mark that was taken out.
        if joins and needed("".join(kept[-_NEAR:]), char, text[at + 1 : at + 1 + _NEAR]):
            kept.append(char)
        elif _is_hidden(char) or marks > _MAX_MARKS:
            hidden += 1
        else:
            kept.append(" " if unicodedata.category(char) == "Zs" else char)
    return "".join(kept), hidden
