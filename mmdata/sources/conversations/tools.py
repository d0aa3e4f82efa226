"""Calls of tools in OpenAI's messages, as text: a turn that only calls has no content."""

import json
from typing import Any

from schemas.conversation import Turn


def called(turn: Turn) -> str:
    """The calls of a turn, one a line, as JSON of name and arguments; empty without any.

    Images that the words in arguments may name are no placeholders: a call is text.
    """
    calls = turn.tool_calls if isinstance(turn.tool_calls, list) else []
    functions = [call.get("function", call) if isinstance(call, dict) else call for call in calls]
    if turn.function_call is not None:
        functions.append(turn.function_call)
    return "\n".join(json.dumps(_plain(function), ensure_ascii=False) for function in functions)


def _plain(function: Any) -> Any:
    """A call with its arguments as values, where they are JSON in a text."""
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
        return function
    try:
        return function | {"arguments": json.loads(function["arguments"])}
    except (ValueError, RecursionError):
        return function
