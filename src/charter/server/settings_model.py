"""What can be configured: one frozen model a section of ``charter.toml``. ``settings`` reads it."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from charter.model.base import Model, Name
from charter.model.hosts import pattern_problem

MCP_PATH = "/mcp"
_WILDCARDS = ("0.0.0.0", "::", "")  # noqa: S104 - compared with, not bound to


def is_loopback(host: str) -> bool:
    """True for ``localhost`` and loopback addresses; a name that would need resolving is not."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _absolute_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.fragment:
        raise ValueError("must be an absolute http(s) URL without a fragment")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not carry a user name or password")
    return value


def _key_url(value: str) -> str:
    parts = urlsplit(_absolute_url(value))
    if parts.scheme != "https" and not is_loopback(parts.hostname or ""):
        raise ValueError("must be https, because the keys fetched from it are trusted")
    return value


Url = Annotated[str, AfterValidator(_absolute_url)]
KeyUrl = Annotated[str, AfterValidator(_key_url)]
Algorithm = Literal["EdDSA", "ES256", "ES384", "ES512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512"]
"""Signatures only; symmetric algorithms and ``none`` cannot be configured."""


class ServerSection(Model):
    """Where Charter listens.

    ``public_url`` is the URL that clients use; it is the audience of every token (RFC 8707). ``drain_seconds``: how long a
    server that was told to stop waits for the calls that are at their upstreams.
    """

    host: str = "127.0.0.1"
    port: int = Field(default=8420, ge=0, le=65535)
    public_url: Url | None = None
    anonymous: bool = False
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    list_governed_tools: bool = True
    result_limit_bytes: int = Field(default=100_000, ge=1_000, le=50_000_000)
    request_limit_bytes: int = Field(default=4 * 1024 * 1024, ge=10_000, le=100_000_000)
    drain_seconds: int = Field(default=10, ge=0, le=3600)
    log_level: Literal["debug", "info", "warning", "error"] = "warning"


class StoreSection(Model):
    """``data`` holds keys and the database; ``url`` names another database."""

    data: Path = Path(".charter")
    url: str | None = None


class ClaimsSection(Model):
    """Where an identity provider's token says what Charter asks; dots step into objects
    (``realm_access.roles``).
    """

    subject: str = "sub"
    roles: str = "roles"
    tenant: str | None = None
    client: tuple[str, ...] = ("client_id", "azp")
    role_map: dict[str, str] = Field(default_factory=dict)


class AuthSection(Model):
    """Who may sign tokens. Charter's own keys (``local_keys``), an identity provider (``jwks_url`` and
    ``issuer``), or both.

    A provider's token stands for an *agent acting for* its subject unless its client is one of
    ``human_clients`` or ``service_clients``: the MCP clients that models drive hold such tokens, and an agent
    must never pass for a person.
    """

    local_keys: bool = True
    local_issuer: Url | None = None
    issuer: Url | None = None
    jwks_url: KeyUrl | None = None
    audience: str | None = None
    algorithms: tuple[Algorithm, ...] = ("EdDSA", "ES256", "RS256")
    token_types: tuple[str, ...] = ("at+jwt",)
    leeway_seconds: int = Field(default=10, ge=0, le=120)
    max_ttl_seconds: int = Field(default=7 * 86_400, ge=60, le=366 * 86_400)
    human_clients: tuple[str, ...] = ()
    service_clients: tuple[str, ...] = ()
    agent_roles: tuple[str, ...] = ("agent",)
    claims: ClaimsSection = ClaimsSection()

    @model_validator(mode="after")
    def _hangs_together(self) -> AuthSection:
        if self.jwks_url and not self.issuer:
            raise ValueError("jwks_url needs issuer: the exact `iss` of the provider's tokens")
        if set(self.human_clients) & set(self.service_clients):
            raise ValueError("a client is either human or a service, not both")
        return self


class StdioSection(Model):
    """Who calls over stdio, and over HTTP in anonymous loopback mode: an agent, and the person whom it acts
    for.
    """

    agent: str = Field(default="local-agent", min_length=1)
    acts_for: str | None = None
    roles: tuple[str, ...] = ("agent",)
    acts_for_roles: tuple[str, ...] = ()


class PoliciesSection(Model):
    """``folder`` None takes the shipped policies.

    ``shadow``: a candidate set whose decisions are only recorded.
    """

    folder: Path | None = None
    shadow: Path | None = None


class WorkflowsSection(Model):
    """Templates besides the shipped ones, and which one ``start_workflow`` takes when none is named.

    ``roles``, ``agents``, ``people``: those there are, so that a template which names others is not published; empty: not
    checked. They give nobody anything.
    ``batch_at_once``: how many calls of one batch (``invoke_tool`` with ``proposal_ids``) run at a time.
    """

    templates: Path | None = None
    default_template: str = Field(default="governed-session", min_length=1)
    roles: tuple[str, ...] = ()
    agents: tuple[str, ...] = ()
    people: tuple[str, ...] = ()
    batch_at_once: int = Field(default=4, ge=1, le=20)


class ToolsSection(Model):
    """The folder of ``NAME.tools.yaml`` manifests; ``fixtures``: a file of what tools answer in dry runs."""

    manifests: Path | None = None
    fixtures: Path | None = None


class AuditSection(Model):
    """A checkpoint is signed after so many events or seconds, whichever is first, and appended to
    ``publish_file``.
    """

    checkpoint_events: int = Field(default=1000, ge=1, le=1_000_000)
    checkpoint_seconds: int = Field(default=60, ge=1, le=86_400)
    publish_file: Path | None = None


class TelemetrySection(Model):
    """OpenTelemetry: the base URL of an OTLP/HTTP collector (``/v1/traces`` and ``/v1/metrics`` are added).

    None: off. ``otlp_metrics = false`` for a collector that takes traces only.
    """

    otlp_endpoint: Url | None = None
    otlp_metrics: bool = True
    otlp_headers: dict[str, str] = Field(default_factory=dict, repr=False)
    service_name: str = "charter"


class GrantsSection(Model):
    """The most that a standing grant may allow."""

    max_uses: int = Field(default=100, ge=0, le=10_000)
    max_hours: int = Field(default=24, ge=1, le=24 * 31)


def _host_pattern(value: str) -> str:
    if problem := pattern_problem(value):
        raise ValueError(f"{value!r} {problem}")
    return value


def _network(value: str) -> str:
    return str(ipaddress.ip_network(value))


HostPattern = Annotated[str, AfterValidator(_host_pattern)]
NetworkText = Annotated[str, AfterValidator(_network)]


class TenantEgress(Model):
    """Where a tenant's steps may send requests; nothing is allowed that is not named.

    ``allow``: hosts, as ``tools.egress.Egress`` reads them. ``private``: networks that may be connected to although they are
    not public. ``secrets``: by name, the hosts that a secret may be sent to.
    """

    allow: tuple[HostPattern, ...] = ()
    private: tuple[NetworkText, ...] = ()
    secrets: dict[str, tuple[HostPattern, ...]] = Field(default_factory=dict)


class EgressSection(TenantEgress):
    """What goes out: of this tenant here, of others under ``tenants``.

    ``ca_file``: authorities for TLS instead of the usual ones.
    """

    ca_file: Path | None = None
    max_response_bytes: int = Field(default=1024 * 1024, ge=1024, le=64 * 1024 * 1024)
    tenants: dict[Name, TenantEgress] = Field(default_factory=dict)


class EmailSection(Model):
    """Where ``notification`` steps of the configured tenant hand in e-mail; without ``host`` nowhere.

    ``password_secret`` is a name in the encrypted store. ``recipients``: addresses and ``*@domain``; nobody else is written to.
    """

    host: str | None = None
    port: int = Field(default=587, ge=1, le=65535)
    security: Literal["starttls", "tls", "none"] = "starttls"
    sender: str | None = Field(default=None, pattern=r"^[^\s@<>]+@[^\s@<>]+$")
    user: str | None = None
    password_secret: str | None = None
    recipients: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _hangs_together(self) -> EmailSection:
        if self.host is not None and self.sender is None:
            raise ValueError("host needs sender: the address that mail comes from")
        if self.user is not None and self.password_secret is None:
            raise ValueError("user needs password_secret: the name of a secret (`charter secret set NAME`)")
        if self.user is not None and self.security == "none" and not is_loopback(self.host or ""):
            raise ValueError('security = "none" would send the password in clear; use starttls or tls')
        return self


class WebhookSection(Model):
    """A receiver of signals that leave, ``[webhooks.NAME]``. Its name is that of its place in the log: keep it.

    ``secret``: the name of its signing secret in ``charter secret``; several, the newest first, while one replaces another.
    ``types``: a ``*`` at the end matches the rest. ``private``: it may be at an address that is not public.
    """

    url: Url
    secret: Annotated[tuple[str, ...], Field(min_length=1)]
    types: tuple[str, ...] = ("workflow.run.*", "approval.*")
    tenant: Name | None = None
    private: bool = False
    attempts: int = Field(default=10, ge=1, le=100)
    timeout_seconds: float = Field(default=15.0, gt=0, le=120)
    first_retry_seconds: float = Field(default=1.0, gt=0, le=3600)
    longest_retry_seconds: float = Field(default=900.0, gt=0, le=86_400)


class Settings(Model):
    """Everything configured, with absolute paths. ``source`` is the file it came from, None for defaults."""

    tenant: Name = "default"
    server: ServerSection = ServerSection()
    store: StoreSection = StoreSection()
    auth: AuthSection = AuthSection()
    stdio: StdioSection = StdioSection()
    policies: PoliciesSection = PoliciesSection()
    workflows: WorkflowsSection = WorkflowsSection()
    tools: ToolsSection = ToolsSection()
    audit: AuditSection = AuditSection()
    telemetry: TelemetrySection = TelemetrySection()
    grants: GrantsSection = GrantsSection()
    egress: EgressSection = EgressSection()
    email: EmailSection = EmailSection()
    webhooks: dict[Name, WebhookSection] = Field(default_factory=dict)
    project: Path = Path()
    source: Path | None = None

    @model_validator(mode="after")
    def _safe_to_listen(self) -> Settings:
        if self.server.anonymous and not is_loopback(self.server.host):
            raise ValueError(
                f"server.anonymous = true with host {self.server.host!r}: anonymous mode is for loopback "
                "addresses only; set anonymous = false, or host to 127.0.0.1"
            )
        public = urlsplit(self.server.public_url or "http://localhost").hostname or ""
        if self.server.anonymous and not is_loopback(public):
            raise ValueError("server.anonymous = true with a public_url that is not loopback; set anonymous = false")
        if self.server.host in _WILDCARDS and self.server.public_url is None:
            raise ValueError(
                f"server.host {self.server.host!r} listens everywhere, "
                "so server.public_url must say the URL that clients use"
            )
        if self.auth.local_keys and self.auth.issuer == self.local_issuer:
            raise ValueError(
                "auth.issuer equals auth.local_issuer: the issuer decides whose keys verify a token; name them apart"
            )
        return self

    def egress_of(self, tenant: str) -> TenantEgress:
        """What this tenant's steps may reach: its own table, else that of the configured tenant for itself alone."""
        if tenant in self.egress.tenants:
            return self.egress.tenants[tenant]
        return self.egress if tenant == self.tenant else TenantEgress()

    def listening_on(self, port: int) -> Settings:
        """The same settings with the port that was really bound (``port = 0`` asks for any free one)."""
        return self.model_copy(update={"server": self.server.model_copy(update={"port": port})})

    @property
    def resource(self) -> str:
        """This server's canonical URL: the RFC 9728 resource that clients name when they ask for a token."""
        return self.server.public_url or f"http://{_bracketed(self.server.host)}:{self.server.port}{MCP_PATH}"

    @property
    def audience(self) -> str:
        """What a token's ``aud`` must name (RFC 8707): ``resource``, unless configured."""
        return self.auth.audience or self.resource

    @property
    def local_issuer(self) -> str:
        """The ``iss`` of tokens that Charter signs itself: the origin of ``resource`` unless configured."""
        if self.auth.local_issuer:
            return self.auth.local_issuer
        parts = urlsplit(self.resource)
        return f"{parts.scheme}://{parts.netloc}"

    @property
    def keys_folder(self) -> Path:
        """Where ``charter init`` puts the keys."""
        return self.store.data / "keys"

    @property
    def database_url(self) -> str:
        """``store.url``, else an SQLite file in the data folder."""
        return self.store.url or f"sqlite:///{self.store.data / 'charter.sqlite'}"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host
