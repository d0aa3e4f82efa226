"""Build a tiny CLIP, a tiny language model and a tokenizer on this machine, without downloads.

They are random, so that nothing they say is worth reading: they show that a training runs, and
that its loss falls. Everything is written the way the real ones come (an open_clip folder, a
transformers folder), so that a real model is a change of path only.

    python examples/make_tiny_models.py OUT
"""

import argparse
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmdata.storage.atomic import give_usual_modes

SAMPLE = Path(__file__).parent / "mmc4"
VOCABULARY = 768
#: A ViT of 64 x 64 pixels with 16-pixel patches: 16 patch tokens of width 64.
CLIP_CONFIG: dict[str, Any] = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 64, "patch_size": 16, "width": 64, "layers": 2, "head_width": 32},
    "text_cfg": {
        "context_length": 16,
        "vocab_size": 512,
        "width": 64,
        "heads": 2,
        "layers": 1,
    },
}
PREPROCESS_CONFIG = {
    "mean": [0.48145466, 0.4578275, 0.40821073],
    "std": [0.26862954, 0.26130258, 0.27577711],
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}


def sample_texts() -> Iterator[str]:
    """The sentences of the bundled documents."""
    for path in sorted(SAMPLE.glob("*.jsonl.zip")):
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                for line in io.TextIOWrapper(archive.open(name), encoding="utf-8"):
                    if line.strip():
                        yield from json.loads(line)["text_list"]


def make_tokenizer(folder: Path) -> int:
    """A byte-level BPE trained on the sample's sentences; returns its size."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sample_texts(), trainer)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|endoftext|>", eos_token="<|endoftext|>"
    )
    wrapped.save_pretrained(folder)
    return len(wrapped)


def make_language_model(folder: Path, vocabulary: int) -> None:
    """A GPT-NeoX of four layers and 128 channels, from its config and a fixed seed."""
    import torch
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    torch.manual_seed(0)
    config = GPTNeoXConfig(
        vocab_size=vocabulary,
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=512,
        max_position_embeddings=512,
        bos_token_id=0,
        eos_token_id=0,
        tie_word_embeddings=False,
    )
    GPTNeoXForCausalLM(config).save_pretrained(folder)
    give_usual_modes(str(folder))


def make_clip(folder: Path) -> None:
    """A CLIP in open_clip's form for a local folder: its config and its weights."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_cfg": CLIP_CONFIG, "preprocess_cfg": PREPROCESS_CONFIG}
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=1))
    model = open_clip.CLIP(**CLIP_CONFIG)
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors", metadata={"format": "pt"})
    give_usual_modes(str(folder))


def main() -> None:
    """Build all three under one folder."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("output", type=Path, help="folder for clip/ and lm/")
    output: Path = parser.parse_args().output
    size = make_tokenizer(output / "lm")
    make_language_model(output / "lm", size)
    make_clip(output / "clip")
    print(f"wrote {output}/clip and {output}/lm (vocabulary {size})")


if __name__ == "__main__":
    main()
