"""Options of `generate`: our defaults, and what cannot be conditioned on media.

transformers' own loop runs; media reach it through the context. What it may do with the batch is
to repeat each sample some times, side by side (beams, returned sequences), which the context
follows. Ways of decoding that feed other rows or a second model are refused here instead of
answering with the wrong pictures.
"""

from typing import Any

from flamingo.modules import lm_cache
from mmdata.errors import UserError

REFUSED = (
    "assistant_model",
    "prompt_lookup_num_tokens",
    "custom_generate",
    "inputs_embeds",
    "negative_prompt_ids",
    "penalty_alpha",
    "guidance_scale",
    "num_beam_groups",
    *lm_cache.NAMES,
)


def complete_options(
    options: dict[str, Any], *, eoc_token_id: int, pad_token_id: int
) -> dict[str, Any]:
    """The options for transformers, with our defaults where nothing was asked for."""
    for name in REFUSED:
        if options.get(name) is not None:
            raise UserError(
                f"generate: {name} cannot be conditioned on images; "
                "use greedy search, beams or sampling"
            )
    returned, beams = options.get("num_return_sequences") or 1, options.get("num_beams") or 1
    if returned > beams and not options.get("do_sample"):
        raise UserError(
            f"generate: expected num_return_sequences of at most num_beams={beams}, "
            f"got {returned}; raise num_beams or set do_sample=True"
        )
    defaults: dict[str, Any] = {
        # Stated, because an LM's own generation config may sample or (MPT) not cache.
        "do_sample": False,
        "num_beams": 1,
        "use_cache": True,
        "eos_token_id": eoc_token_id,
        "pad_token_id": pad_token_id,
    }
    if "generation_config" in options:
        defaults = {name: defaults[name] for name in ("eos_token_id", "pad_token_id")}
    return defaults | options
