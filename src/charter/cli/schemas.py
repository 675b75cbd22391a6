"""``charter schema``: the published JSON Schemas, and the Cedar schema."""

from __future__ import annotations

from typing import Annotated

import typer

from charter.cli.output import Json, page_json, print_json, print_table
from charter.errors import NotFound

CEDAR = "cedar"


def schema(
    name: Annotated[str | None, typer.Argument(help=f"Which one; {CEDAR} for what policies may speak of.")] = None,
    as_json: Json = False,
) -> None:
    """Print a published schema; without a name, list them."""
    from charter.manifests.schemas import published_schemas

    if name == CEDAR:
        from charter.cli.policies import schema as cedar

        cedar(None)
        return
    schemas = published_schemas()
    if name is None:
        rows = [(key, value.get("description", value.get("title", ""))) for key, value in schemas.items()]
        rows.append((CEDAR, "What policies may speak of (Cedar schema)."))
        if as_json:
            page_json(key for key, _ in rows)
        else:
            print_table(("id", "what"), rows)
        return
    by_name = {key.lower(): value for key, value in schemas.items()}
    if name.lower() not in by_name:
        raise NotFound(f"There is no schema {name!r}.", next_step="`charter schema` lists them.")
    print_json(by_name[name.lower()])
