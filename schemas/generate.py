"""Write the JSON Schemas in `schemas/json/` from the typed records: `python -m schemas.generate`.

The types are the contract, the files are for readers in other languages. They are checked in, and
a test fails when the two differ.
"""

import inspect
import json
from pathlib import Path
from typing import Any

from schemas import conversation, document, laion, manifest, validation

FOLDER = Path(__file__).parent / "json"


def schema_files() -> dict[str, str]:
    """What each file of `schemas/json/` holds, by name."""
    schemas = {
        "document": document.json_schema(),
        "pair": laion.json_schema(),
        **manifest.json_schemas(),
        **conversation.json_schemas(),
        **validation.json_schemas(),
    }
    return {
        f"{name}.schema.json": json.dumps(_titled(name, schema), indent=2, ensure_ascii=False)
        + "\n"
        for name, schema in sorted(schemas.items())
    }


def _titled(name: str, schema: dict[str, object]) -> dict[str, object]:
    """The schema with the dialect and format version that it is written in."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$comment": f"{name}, format version {document.FORMAT_VERSION}; generated, do not edit",
        **_unindented(schema),
    }


def _unindented(value: Any) -> Any:
    """The schema with descriptions as they are read; msgspec before 0.23 leaves them indented."""
    if isinstance(value, dict):
        return {
            key: inspect.cleandoc(part)
            if key == "description" and isinstance(part, str)
            else _unindented(part)
            for key, part in value.items()
        }
    return [_unindented(part) for part in value] if isinstance(value, list) else value


def main() -> None:
    """Rewrite every file of the folder."""
    FOLDER.mkdir(exist_ok=True)
    for name, text in schema_files().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        print(f"schemas/json/{name}")


if __name__ == "__main__":
    main()
