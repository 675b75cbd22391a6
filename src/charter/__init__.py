"""Charter: an MCP server that governs LLM agents.

Workflows decide. Agents propose. Humans approve. Tools execute. Audit remembers everything.
"""

__version__ = "0.1.0"
