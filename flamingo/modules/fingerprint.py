"""Which LM and which tokenizer: hashes that need neither loaded weights nor the network.

An LM is known by a sample of its weights: the first bytes of 64 tensors spread over the sorted
names, with their dtype and shape. Two LMs of one architecture (Pythia and its deduplicated twin)
differ there, another way of cutting the same weights into files does not. A tokenizer is known
by its vocabulary, which does not change with library versions as its serialised form does.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import huggingface_hub
from safetensors import safe_open

NUM_TENSORS = 64
NUM_VALUES = 256


def tokenizer_fingerprint(tokenizer: Any) -> str:
    vocabulary = json.dumps(sorted(tokenizer.get_vocab().items()), ensure_ascii=False)
    return hashlib.sha256(vocabulary.encode("utf-8", "surrogatepass")).hexdigest()


def lm_fingerprint(path: str, cache_dir: str | None = None) -> str | None:
    """SHA-256 of the first values of some of an LM's weights; None where none are at hand.

    Args:
        path: a folder, or a hub name that is in the cache.
        cache_dir: of downloads.
    """
    folder = Path(path)
    if not folder.is_dir():
        cached = huggingface_hub.try_to_load_from_cache(path, "config.json", cache_dir=cache_dir)
        if not isinstance(cached, str):
            return None
        folder = Path(cached).parent
    where = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as opened:
            where.update(dict.fromkeys(opened.keys(), file))
    if not where:
        return None
    names = sorted(where)
    digest = hashlib.sha256()
    for name in names[:: max(1, len(names) // NUM_TENSORS)]:
        with safe_open(where[name], framework="pt") as opened:
            part = opened.get_slice(name)
            shape = part.get_shape()
            head = part[: max(1, NUM_VALUES // (shape[-1] or 1))] if shape else part[...]
        values = head.flatten()[:NUM_VALUES].float().numpy().tobytes()
        digest.update(f"{name} {part.get_dtype()} {shape}".encode() + values)
    return digest.hexdigest()
