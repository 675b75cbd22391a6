"""What a tool that is not called answers, in dry runs and simulations: a value of the shape that it promises."""

from __future__ import annotations

from typing import Final

from charter.errors import CharterError
from charter.manifests.arguments import compile_schema
from charter.manifests.samples import sample
from charter.model.base import Json, JsonObject
from charter.model.outbound import EMAIL_TOOL, HTTP_TOOL, WEBHOOK_TOOL
from charter.model.tool import ToolManifest

_OWN: Final[dict[str, JsonObject]] = {
    HTTP_TOOL: {"status": 200, "headers": {}, "body": {}},
    WEBHOOK_TOOL: {"status": 200},
    EMAIL_TOOL: {"recipients": 1},
}


def made_up(tool: ToolManifest) -> Json:
    """Structured content by the tool's output schema; None where it has none, or where none could be made that it accepts."""
    if tool.name in _OWN or tool.output_schema is None:
        return _OWN.get(tool.name)
    value = sample(tool.output_schema)
    try:
        return value if compile_schema(tool.output_schema).accepts(value) else None
    except CharterError:  # a schema that is none
        return None
