"""A tiny CLIP in open_clip's form for a local folder, made here: random, but for open_clip's
tokenizer of 49,408 numbers, so that real sentences go through it.

    make_clip(folder, seed=0)   returns what --clip-model takes for it
"""

import json
from pathlib import Path
from typing import Any

CONFIG: dict[str, Any] = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 32, "layers": 2, "head_width": 16},
    "text_cfg": {
        "context_length": 77,
        "vocab_size": 49408,
        "width": 16,
        "heads": 2,
        "layers": 1,
    },
}
PREPROCESS = {
    "mean": [0.48145466, 0.4578275, 0.40821073],
    "std": [0.26862954, 0.26130258, 0.27577711],
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}


def make_clip(folder: Path, *, seed: int = 0, vocabulary: int = 49408) -> str:
    """Write the folder; a GPU is not needed for any of it."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    config = {**CONFIG, "text_cfg": {**CONFIG["text_cfg"], "vocab_size": vocabulary}}
    folder.mkdir(parents=True, exist_ok=True)
    whole = {"model_cfg": config, "preprocess_cfg": PREPROCESS}
    (folder / "open_clip_config.json").write_text(json.dumps(whole))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = open_clip.CLIP(**config)
        # Random towers give all pictures nearly one feature; larger weights tell them apart.
        for name, value in model.named_parameters():
            if name.endswith("conv1.weight") or name == "token_embedding.weight":
                value.data.mul_(20)
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors", metadata={"format": "pt"})
    return f"local-dir:{folder}"
