"""Write the published JSON Schemas to docs/schemas/ and into the package; run it after a change of the models."""

from __future__ import annotations

from pathlib import Path

from charter.manifests.schemas import published_schemas, schema_text

ROOT = Path(__file__).parents[1]
FOLDERS = (ROOT / "docs" / "schemas", ROOT / "src" / "charter" / "schemas")


def main() -> None:
    """Files of schemas that are no more are removed."""
    texts = {f"{name}.json": schema_text(schema) for name, schema in published_schemas().items()}
    for folder in FOLDERS:
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("*.json"):
            if old.name not in texts:
                old.unlink()
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
