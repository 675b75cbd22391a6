"""What is checked of ``external`` and ``notification`` steps before a template runs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from charter.manifests.finding import Finding
from charter.model.placeholders import expressions_in
from charter.model.template import ExternalStep, NotificationStep, Step, Template

_LATE = re.compile(r"secrets\.[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}|callback\.(?:url|secret)")
_RESPONSE = re.compile(r"(?<![\w.])response\b")
_SECRETS = re.compile(r"(?<![\w.])secrets\b")
_CALLBACK = re.compile(r"(?<![\w.])callback\b")
_ANSWER: Final = re.compile(r"/steps/\d+/(?:success_condition|extract/.*)$")
_CALLED_BACK: Final = re.compile(r"/steps/\d+/callback/(?:success_condition|extract/.*)$")


def outbound_sources(step: Step) -> Iterator[tuple[str, str]]:
    """Pointer within the step, and CEL source, of what an ``external`` step sends and asks of the answer.

    ``{{ secrets.NAME }}`` is not among them: it is no CEL, but the name of what is put in when the request leaves.
    """
    if isinstance(step, NotificationStep):
        yield from _message_sources(step)
    if not isinstance(step, ExternalStep):
        return
    for name in ("url", "headers", "body"):
        sources = expressions_in(getattr(step, name))
        yield from ((f"/{name}", source) for source in sources if _LATE.fullmatch(source) is None)
    if step.success_condition is not None:
        yield "/success_condition", step.success_condition
    yield from ((f"/extract/{name}", source) for name, source in step.extract.items())
    if step.callback is not None:
        if step.callback.success_condition is not None:
            yield "/callback/success_condition", step.callback.success_condition
        yield from ((f"/callback/extract/{name}", source) for name, source in step.callback.extract.items())


def _message_sources(step: NotificationStep) -> Iterator[tuple[str, str]]:
    if step.webhook is not None:
        for name in ("url", "data"):
            sources = expressions_in(getattr(step.webhook, name))
            yield from ((f"/webhook/{name}", source) for source in sources if _LATE.fullmatch(source) is None)
    if step.email is not None:
        for name in ("to", "subject", "text"):
            yield from ((f"/email/{name}", source) for source in expressions_in(getattr(step.email, name)))


def callbacks(template: Template) -> Iterator[Finding]:
    """A step that asks to be called back says where and how; one that does not, cannot."""
    for index, step in enumerate(template.steps):
        if not isinstance(step, ExternalStep):
            continue
        named = {
            source
            for name in ("url", "headers", "body")
            for source in expressions_in(getattr(step, name))
            if source.startswith("callback.") and _LATE.fullmatch(source)
        }
        where = f"/steps/{index}"
        if step.callback is None and named:
            mend = "Add `callback: {}` with its timeout, or take {{ callback.… }} out."
            yield Finding("error", where, "it gives a callback away and does not wait for one", mend)
        elif step.callback is not None and len(named) < 2:
            mend = "Send {{ callback.url }} and {{ callback.secret }} along; nobody else can call back."
            yield Finding("warning", f"{where}/callback", "the other side is not told where and how to call back", mend)


def misplaced(where: str, bare: str) -> Iterator[Finding]:
    """What may be read in a few places only. ``bare`` is the source without its texts."""
    if _RESPONSE.search(bare) and not _ANSWER.search(where):
        mend = "Name it in `extract`, and read steps.ID.output afterwards."
        yield Finding("error", where, "there is no response here; `success_condition` and `extract` have one", mend)
    if _CALLBACK.search(bare) and not _CALLED_BACK.search(where):
        mend = "`callback.success_condition` and `callback.extract` read it; send {{ callback.url }} as it stands."
        yield Finding("error", where, "there is no callback here", mend)
    if _SECRETS.search(bare):
        mend = (
            "Write {{ secrets.NAME }} and nothing else within the brackets, in an external step's url, headers or body."
        )
        yield Finding("error", where, "a secret is no value for CEL", mend)
