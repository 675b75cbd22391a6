"""The MCP door: Charter as an MCP server, for clients of 2026-07-28 and of the handshake revisions."""

from charter.server.mcp.door import CharterServer, build_mcp_server
from charter.server.mcp.parts import Door, DoorSettings, PrincipalOf

__all__ = ["CharterServer", "Door", "DoorSettings", "PrincipalOf", "build_mcp_server"]
