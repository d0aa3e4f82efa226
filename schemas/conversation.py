"""Records of conversations and interleaved pages as others write them: what convert-custom reads.

Source formats, so unknown fields are tolerated everywhere: they are carried along into the
document. LLaVA, ADNI, ShareGPT and OpenAI-style messages are one family (`Dialogue`): a list of
turns under `conversations` or `messages`, each `from`/`value` or `role`/`content`.
"""

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

#: An image: a name below --image-root, a URL, a `data:` URI, base64, or an object that holds one of
#: these under one of many keys (mmdata/sources/conversations/images.py lists them).
ImageReference = str | dict[str, msgspec.Raw]
Images = ImageReference | list[ImageReference | None] | None


#: A part of a turn: a text (`text`), or an image where it stands: an object as above, `index` into
#: the images of the record, or a `type` alone that stands for the next of them.
ContentPart = dict[str, msgspec.Raw]


class Turn(Struct, rename={"sender": "from"}):
    """What one side says. `<image>` and its like in a text stand for the next of the images."""

    sender: str | None = None
    value: str | UnsetType = UNSET
    role: str | None = None
    content: str | list[str | ContentPart] | ContentPart | UnsetType | None = UNSET
    text: Annotated[msgspec.Raw | UnsetType, Meta(description="where there is no value")] = UNSET
    image: Annotated[msgspec.Raw | UnsetType, Meta(description="one, or a list, of a turn")] = UNSET
    images: msgspec.Raw | UnsetType = UNSET
    tool_calls: Annotated[Any, Meta(description="OpenAI's; the content may then be null")] = None
    function_call: Any = None


class Dialogue(Struct):
    """LLaVA, ADNI, ShareGPT and messages: turns, and the images that placeholders stand for."""

    conversations: list[Turn] | UnsetType = UNSET
    messages: list[Turn] | UnsetType = UNSET
    image: Images = None
    images: Images = None
    id: Any = None


class ObelicsRow(Struct):
    """OBELICS: at each place either a text or an image."""

    texts: list[str | None]
    images: list[ImageReference | None]


class ChatGptSequence(Struct):
    """OpenFlamingo's ChatGPT sequences: `_!_IMAGE1_!_` in `example` is a key of `image_map`."""

    example: str
    image_map: dict[str, dict[str, msgspec.Raw]]
    is_gpt: bool | None = None


def json_schemas() -> dict[str, dict[str, Any]]:
    """JSON Schemas (2020-12) of the formats, by file stem."""
    records = {"dialogue": Dialogue, "obelics": ObelicsRow, "chatgpt": ChatGptSequence}
    return {name: msgspec.json.schema(record) for name, record in records.items()}
