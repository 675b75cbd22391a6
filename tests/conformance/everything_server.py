"""The conformance suite's fixture tools, as an upstream: over streamable HTTP on a free port, or over stdio.

Names, results and questions are those that the suite's scenarios ask for. What asks something back works in both protocol
eras where the SDK's resolvers do it; the hand-made rounds are in ``everything_rounds``.
"""

from __future__ import annotations

import argparse
import socket
import sys
from typing import Annotated, Any, Final

import anyio
import uvicorn
from mcp import MCPError
from mcp.server.mcpserver import Context, Elicit, ElicitationResult, MCPServer, RequestStateSecurity, Resolve, Sample
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import (
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    AudioContent,
    BlobResourceContents,
    CallToolResult,
    CreateMessageResult,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    SamplingMessage,
    TextContent,
    TextResourceContents,
)
from pydantic import BaseModel, Field

from tests.conformance.everything_rounds import add_rounds

PNG: Final = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg=="
WAV: Final = "UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQIAAAA="
Ctx = Context[Any, Any]


class UserResponse(BaseModel):
    response: str = Field(description="User's response")


class Defaults(BaseModel):
    """SEP-1034: a default for every primitive type."""

    name: str = Field(default="John Doe", description="User name")
    age: int = Field(default=30, description="User age")
    score: float = Field(default=95.5, description="User score")
    status: str = Field(default="active", json_schema_extra={"enum": ["active", "inactive", "pending"]})
    verified: bool = Field(default=True, description="Verification status")


class Enums(BaseModel):
    """SEP-1330: every way to write an enumeration."""

    untitledSingle: str = Field(json_schema_extra={"enum": ["option1", "option2", "option3"]})  # noqa: N815
    titledSingle: str = Field(  # noqa: N815
        json_schema_extra={
            "oneOf": [
                {"const": "value1", "title": "First Option"},
                {"const": "value2", "title": "Second Option"},
                {"const": "value3", "title": "Third Option"},
            ]
        }
    )
    legacyEnum: str = Field(  # noqa: N815
        json_schema_extra={"enum": ["opt1", "opt2", "opt3"], "enumNames": ["Option One", "Option Two", "Option Three"]}
    )
    untitledMulti: list[str] = Field(  # noqa: N815
        json_schema_extra={"items": {"type": "string", "enum": ["option1", "option2", "option3"]}}
    )
    titledMulti: list[str] = Field(  # noqa: N815
        json_schema_extra={
            "items": {
                "anyOf": [
                    {"const": "value1", "title": "First Choice"},
                    {"const": "value2", "title": "Second Choice"},
                    {"const": "value3", "title": "Third Choice"},
                ]
            }
        }
    )


class Weather(BaseModel):
    city: str
    degrees: float
    days: list[int]


async def ask_response(message: str) -> Elicit[UserResponse]:
    return Elicit(message, UserResponse)


async def ask_defaults() -> Elicit[Defaults]:
    return Elicit("Please provide user information", Defaults)


async def ask_enums() -> Elicit[Enums]:
    return Elicit("Please select values using different enum schema types", Enums)


async def ask_model(prompt: str) -> Sample:
    return Sample([SamplingMessage(role="user", content=TextContent(type="text", text=prompt))], max_tokens=100)


def answered(outcome: ElicitationResult[Any]) -> str:
    content = outcome.data.model_dump_json() if outcome.action == "accept" else "{}"
    return f"action={outcome.action}, content={content}"


def build() -> MCPServer[Any]:
    server: MCPServer[Any] = MCPServer(
        "everything",
        version="1",
        log_level="CRITICAL",
        request_state_security=RequestStateSecurity(keys=[b"fixture key of the everything server"]),
    )
    _add_content(server)
    _add_structured(server)
    _add_running(server)
    _add_asking(server)
    add_rounds(server)
    return server


def _add_content(server: MCPServer[Any]) -> None:
    @server.tool(structured_output=False)
    def test_simple_text() -> str:
        """One text."""
        return "This is a simple text response for testing."

    @server.tool(structured_output=False)
    def test_image_content() -> ImageContent:
        """One image."""
        return ImageContent(type="image", data=PNG, mime_type="image/png")

    @server.tool(structured_output=False)
    def test_audio_content() -> AudioContent:
        """One sound."""
        return AudioContent(type="audio", data=WAV, mime_type="audio/wav")

    @server.tool(structured_output=False)
    def test_embedded_resource() -> EmbeddedResource:
        """One embedded resource."""
        return _embedded("test://embedded-resource", "text/plain", "This is an embedded resource content.")

    @server.tool(structured_output=False)
    def test_multiple_content_types() -> list[Any]:
        """A text, an image and an embedded resource."""
        return [
            TextContent(type="text", text="Multiple content types test:"),
            ImageContent(type="image", data=PNG, mime_type="image/png"),
            _embedded("test://mixed-content-resource", "application/json", '{"test":"data","value":123}'),
        ]

    @server.tool(structured_output=False)
    def test_everything_else() -> CallToolResult:
        """What the suite does not ask for: binary resources, links, annotations, Unicode, metadata of result and blocks."""
        blob = BlobResourceContents(uri="test://blob", mime_type="application/octet-stream", blob="AAECA/8=")
        marked = {"type": "text", "text": "naïve ☃ 𝄞 \u202e", "annotations": {"audience": ["user"], "priority": 0.5}}
        return CallToolResult(
            content=[
                TextContent.model_validate({**marked, "_meta": {"example.org/block": {"deep": [1, None]}}}),
                EmbeddedResource(type="resource", resource=blob),
                ResourceLink(type="resource_link", uri="test://link", name="a link", description="of no use", size=7),
            ],
            _meta={"example.org/result": {"kept": True}},
        )


def _embedded(uri: str, mime_type: str, text: str) -> EmbeddedResource:
    return EmbeddedResource(type="resource", resource=TextResourceContents(uri=uri, mime_type=mime_type, text=text))


def _add_structured(server: MCPServer[Any]) -> None:
    @server.tool()
    def test_structured_output(city: str) -> Weather:
        """An object, as structured content and as text."""
        return Weather(city=city, degrees=-1.5, days=[1, 2, 3])

    @server.tool(structured_output=False)
    def test_structured_error() -> CallToolResult:
        """An error with structured content."""
        return CallToolResult(
            content=[TextContent(type="text", text="no such city")],
            structured_content={"reason": "unknown", "tried": ["a", 1, None, {"b": 0.25}]},
            is_error=True,
        )

    @server.tool(name="json_schema_2020_12_tool", structured_output=False)
    def json_schema() -> str:
        """Has the input schema below."""
        return "json_schema_2020_12_tool"

    # MCPServer makes schemas from signatures; this one is given as it is.
    server._tool_manager._tools["json_schema_2020_12_tool"].parameters = JSON_SCHEMA

    @server.tool(structured_output=False)
    def test_x_mcp_header(
        region: Annotated[
            str, Field(description="Also a header", json_schema_extra={"x-mcp-header": "Region"})
        ] = "none",
    ) -> str:
        """SEP-2243: an argument that is repeated as an HTTP header."""
        return f"region={region}"


JSON_SCHEMA: Final[dict[str, Any]] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "$anchor": "addressDef",
            "type": "object",
            "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
        }
    },
    "properties": {
        "name": {"type": "string"},
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": {"type": "string"},
        "email": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}


def _add_running(server: MCPServer[Any]) -> None:
    @server.tool(structured_output=False)
    async def test_tool_with_progress(ctx: Ctx) -> str:
        """Reports 0, 50 and 100 of 100."""
        for done in (0, 50, 100):
            await ctx.report_progress(done, 100, f"Completed step {done} of 100")
            await anyio.sleep(0.02)
        return "Tool with progress executed successfully"

    @server.tool(structured_output=False)
    def test_error_handling() -> str:
        """Fails as tools do."""
        raise ToolError("This tool intentionally returns an error for testing")

    @server.tool(structured_output=False)
    def test_missing_capability(ctx: Ctx) -> str:
        """Refuses callers that cannot sample, as a JSON-RPC error."""
        capabilities = ctx.session.client_capabilities
        if capabilities is None or capabilities.sampling is None:
            raise MCPError(
                code=MISSING_REQUIRED_CLIENT_CAPABILITY,
                message="This tool requires the client 'sampling' capability",
                data={"requiredCapabilities": {"sampling": {}}},
            )
        return "The client can sample."

    @server.tool()
    async def test_trigger_tool_change(ctx: Ctx) -> str:
        """Adds and removes a tool, and says so."""
        server.add_tool(_nothing, name="test_dynamic_tool")
        server.remove_tool("test_dynamic_tool")
        await ctx.notify_tools_changed()
        return "tool list changed"


def _nothing() -> str:
    """Comes and goes."""
    return "dynamic"


def _add_asking(server: MCPServer[Any]) -> None:
    @server.tool(structured_output=False)
    async def test_elicitation(
        message: str, outcome: Annotated[ElicitationResult[UserResponse], Resolve(ask_response)]
    ) -> str:
        """Asks the person something."""
        return f"User response: {answered(outcome)}"

    @server.tool(structured_output=False)
    async def test_elicitation_sep1034_defaults(
        outcome: Annotated[ElicitationResult[Defaults], Resolve(ask_defaults)],
    ) -> str:
        """Asks with defaults."""
        return f"Elicitation completed: {answered(outcome)}"

    @server.tool(structured_output=False)
    async def test_elicitation_sep1330_enums(
        outcome: Annotated[ElicitationResult[Enums], Resolve(ask_enums)],
    ) -> str:
        """Asks with enumerations."""
        return f"Elicitation completed: {answered(outcome)}"

    @server.tool(structured_output=False)
    async def test_sampling(prompt: str, result: Annotated[CreateMessageResult, Resolve(ask_model)]) -> str:
        """Asks the client's model."""
        text = result.content.text if isinstance(result.content, TextContent) else "No response"
        return f"LLM response: {text}"


def main() -> None:
    """Say on standard error where it listens, and serve."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--stdio", action="store_true")
    if parser.parse_args().stdio:
        build().run("stdio")
        return
    listening = socket.create_server(("127.0.0.1", 0))
    print(f"Everything at http://127.0.0.1:{listening.getsockname()[1]}/mcp", file=sys.stderr, flush=True)
    config = uvicorn.Config(
        build().streamable_http_app(), http="h11", log_level="critical", timeout_graceful_shutdown=1
    )
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()
