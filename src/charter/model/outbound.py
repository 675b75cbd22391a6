"""What ``external`` and ``notification`` steps say of what they send out; the steps themselves are in ``model.template``."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from charter.model.base import Json, JsonObject, Model, Name
from charter.model.tool import Risk

SERVER: Final = "charter"
"""The name under which Charter's own tools are governed; no upstream may have it."""
HTTP_TOOL: Final = "charter__http_request"
WEBHOOK_TOOL: Final = "charter__webhook"
EMAIL_TOOL: Final = "charter__email"

Method = Literal["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"]
SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
"""RFC 9110, 9.2.1: they ask for no change."""
IDEMPOTENT: Final = SAFE | {"PUT", "DELETE"}
"""RFC 9110, 9.2.2: sent twice they have the effect of once."""

HeaderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}$")]


class HttpCall(Model):
    """One HTTP request. Texts may hold ``{{ CEL }}``, ``{{ secrets.NAME }}`` and, with ``callback``, ``{{ callback.url }}``
    and ``{{ callback.secret }}``. Times are seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    method: Method = Field(default="GET")
    url: str = Field(
        min_length=1,
        max_length=4000,
        description="Absolute, http or https; its host must be allowed ([egress]). Values within it are percent-encoded.",
    )
    headers: dict[HeaderName, str] = Field(default_factory=dict)
    body: Json = Field(default=None, description="Text as it is; anything else as JSON. Default: no body.")
    timeout_seconds: int = Field(default=30, ge=1, le=600, description="For the whole request, redirects included.")
    follow_redirects: bool = Field(
        default=False, description="Of GET, HEAD and OPTIONS, at most 5; to another origin without the headers."
    )
    max_bytes: int | None = Field(
        default=None, ge=1, description="A longer answer is an error; at most what the configuration allows."
    )
    success_condition: str | None = Field(
        default=None,
        description="CEL over response (status, headers, body), trigger, steps, workflow; default: the status is 2xx.",
    )
    extract: dict[Name, str] = Field(
        default_factory=dict, description="Name to CEL over the same; the step's output has these fields and status."
    )
    idempotent: bool | None = Field(
        default=None,
        description="Whether the same request may be sent again when its answer was lost. Default: as its method is "
        "(RFC 9110); true for a POST or PATCH says that the service honours Idempotency-Key.",
    )
    risk: Risk | None = Field(
        default=None, description="What the policy is told. Default: low for GET, HEAD and OPTIONS, else medium."
    )
    sensitive: bool = Field(
        default=False, description="Headers, body and answer are withheld from the record; what is extracted is not."
    )


class Callback(Model):
    """The step ends when the other side calls back: at ``{{ callback.url }}``, signed with ``{{ callback.secret }}``."""

    timeout_seconds: int = Field(
        default=86_400, ge=1, le=31_536_000, description="Counted from the answer to the request."
    )
    success_condition: str | None = Field(
        default=None, description="CEL over callback (body), trigger, steps, workflow; default: any callback will do."
    )
    extract: dict[Name, str] = Field(default_factory=dict, description="Name to CEL over the same.")


class WebhookMessage(Model):
    """A webhook, signed as in Standard Webhooks."""

    url: str = Field(min_length=1, max_length=4000, description="Its host must be allowed ([egress]); may hold {{ }}.")
    secret: Name = Field(description="The name of the secret that signs it.")
    type: Name = Field(default="workflow.notification", description="What kind of message it is.")
    data: JsonObject = Field(default_factory=dict, description="What it says; may hold {{ CEL }}.")


class EmailMessage(Model):
    """An e-mail in plain text."""

    to: tuple[str, ...] = Field(min_length=1, max_length=50, description="Addresses; may hold {{ CEL }}.")
    subject: str = Field(min_length=1, max_length=500, description="May hold {{ CEL }}.")
    text: str = Field(min_length=1, description="May hold {{ CEL }}.")


class Message(Model):
    """What a notification sends: one of ``webhook`` and ``email``."""

    webhook: WebhookMessage | None = None
    email: EmailMessage | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.webhook is None) == (self.email is None):
            raise ValueError("A notification has one of `webhook` and `email`.")
        return self
