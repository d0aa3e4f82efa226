"""Names and shapes of OpenFlamingo's checkpoints, from `tests/assets/checkpoint_keys`."""

import json
from pathlib import Path
from typing import Any

KEYS = json.loads(
    (Path(__file__).parents[3] / "assets" / "checkpoint_keys" / "openflamingo.json").read_text()
)
MODELS: dict[str, dict[str, Any]] = KEYS["models"]


def checkpoint_shapes(
    model: dict[str, Any], *, width: int = 1024, v1: bool = False, computed: bool = False
) -> dict[str, tuple[int, ...]]:
    """What a released checkpoint of a model holds; `v1` in the older spelling of its blocks,
    `computed` with the tables that older transformers saved."""
    sizes = {"W": width, "4W": 4 * width, "D": model["hidden"], "4D": 4 * model["hidden"]}

    def shape(pattern: list[Any]) -> tuple[int, ...]:
        return tuple(sizes.get(one, one) for one in pattern)

    found = {}
    for name, pattern in KEYS["perceiver"].items():
        for i in range(6 if "{i}" in name else 1):
            found[name.format(i=i)] = shape(pattern)
    (today, older), *_ = KEYS["v1_lists"].items()
    for k in range(model["every"] - 1, model["layers"], model["every"]):
        prefix = (older if v1 else today).format(list=model["list"], k=k)
        found |= {prefix + name: shape(pattern) for name, pattern in KEYS["block"].items()}
    for name in model["matrices"]:
        found[f"lang_encoder.{name}"] = (model["rows"], model["hidden"])
    if computed:
        for k in range(model["layers"]):
            for name in KEYS["computed"].get(model["family"], ()):
                found[f"lang_encoder.{model['list']}.{k}.decoder_layer.{name}"] = (4,)
    return found
