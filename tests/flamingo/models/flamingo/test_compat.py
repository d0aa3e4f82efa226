"""What does not belong together is one line, before anything loads."""

import pytest
import torch

from flamingo.models.flamingo.compat import check_fit, check_tokenizer
from flamingo.modules.checkpoint_files import write_record, write_weights
from flamingo.modules.fingerprint import lm_fingerprint
from mmdata.errors import UserError
from tests.flamingo.models.flamingo.parity_case import ParityCase
from tests.flamingo.models.flamingo.tiny_hub import lm_config, save_lm, tokenizer

OPTIONS = {"vision_width": 64, "cross_attn_every_n_layers": 1}


def header_of_reference(parity: ParityCase, folder):
    """A checkpoint with the reference's names and shapes, without their values."""
    names = [n for n in parity.meta["checkpoint_keys"] if "lm_head" not in n]
    names = [n for n in names if n.removeprefix("module.") in parity.weights]
    weights = {n: parity.weights[n.removeprefix("module.")] for n in names}
    torch.save({"epoch": 0, "model_state_dict": weights}, folder / "checkpoint_0.pt")
    return folder / "checkpoint_0.pt"


def fit_to(parity: ParityCase, path, **changes):
    options = {"vision_width": 64, "cross_attn_every_n_layers": parity.meta["every"]} | changes
    family = options.pop("family", parity.meta["lm"])
    config = lm_config(family, **options.pop("config", {}))
    return check_fit(config, tokenizer(), checkpoint=path, **options)


def test_the_references_checkpoint_fits_its_own_models(parity, tmp_path):
    fit = fit_to(parity, header_of_reference(parity, tmp_path))
    assert fit.rows == 2003
    assert fit.special_tokens == {"<|endofchunk|>": 2000, "<image>": 2001, "<PAD>": 2002}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"family": "llama"}, r"decoder layers: expected model.layers \(llama\), got "),
        ({"config": {"hidden_size": 128}}, "hidden size: expected 128, got 64"),
        ({"cross_attn_every_n_layers": 4}, "cross-attention before layers: expected 3, got "),
        ({"config": {"num_hidden_layers": 8}}, "cross-attention before layers: expected "),
    ],
)
def test_another_model_is_named_with_expected_and_got(parity, tmp_path, changes, message):
    path = header_of_reference(parity, tmp_path)
    with pytest.raises(UserError, match=f"does not fit: .*{message}") as caught:
        fit_to(parity, path, **changes)
    assert "\n" not in str(caught.value)


def test_vision_width_and_rows_are_compared(tmp_path):
    weights = {
        "perceiver.latents": torch.zeros(64, 1024),
        "lang_encoder.gpt_neox.embed_in.weight": torch.zeros(50280, 64),
    }
    for i in range(4):
        name = f"lang_encoder.gpt_neox.layers.{i}.gated_cross_attn_layer.attn.norm.weight"
        weights[name] = torch.zeros(64)
    write_weights(tmp_path / "x.safetensors", weights, None)
    with pytest.raises(UserError) as caught:
        check_fit(
            lm_config("gptneox"), tokenizer(), checkpoint=tmp_path / "x.safetensors", **OPTIONS
        )
    assert str(caught.value) == (
        f"checkpoint {tmp_path}/x.safetensors does not fit: "
        "rows: expected 2003, got 50280; vision width: expected 64, got 1024"
    ) or str(caught.value).endswith(
        "vision width: expected 64, got 1024; rows: expected 2003, got 50280"
    )


def test_a_recorded_fit_is_compared_field_by_field(tmp_path):
    lm = save_lm(tmp_path / "lm")
    fit = check_fit(lm_config("gptneox"), tokenizer(), lm_path=lm, **OPTIONS)
    write_record(tmp_path / "run", fit.record(), tokenizer())
    again = check_fit(
        lm_config("gptneox"), tokenizer(), lm_path=lm, checkpoint=tmp_path / "run", **OPTIONS
    )
    assert again == fit
    assert (tmp_path / "run" / "tokenizer" / "tokenizer.json").is_file()

    twin = save_lm(tmp_path / "twin", seed=1)  # one architecture, other weights
    with pytest.raises(UserError, match=r"does not fit: lm_sha256: expected \w{12}…, got \w{12}…"):
        check_fit(
            lm_config("gptneox"), tokenizer(), lm_path=twin, checkpoint=tmp_path / "run", **OPTIONS
        )
    other = tokenizer()
    other.add_tokens(["<extra>"])
    message = "rows: expected 2004, got 2003; .*tokenizer_sha256: expected "
    with pytest.raises(UserError, match=message):
        check_fit(lm_config("gptneox"), other, checkpoint=tmp_path / "run", **OPTIONS)


def test_tokens_that_were_added_to_a_tokenizer_are_no_sign_of_another_lm():
    check_tokenizer(lm_config("gptneox"), tokenizer())
    check_tokenizer(lm_config("gptneox", eos_token_id=[7, 0], bos_token_id=None), tokenizer())


def test_the_fingerprint_is_of_the_weights_and_not_of_their_files(tmp_path):
    one = lm_fingerprint(save_lm(tmp_path / "one"))
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tmp_path / "one")
    model.save_pretrained(tmp_path / "sharded", max_shard_size="200KB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 1
    assert lm_fingerprint(str(tmp_path / "sharded")) == one
    assert lm_fingerprint(save_lm(tmp_path / "two", seed=1)) != one
    assert lm_fingerprint("nobody/nothing", cache_dir=str(tmp_path)) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab_size": 1500}, r"expected ids below 1500 \(rows of the LM, gpt_neox\), got 1999"),
        ({"vocab_size": 50304}, r"expected about 50304 tokens .*, got 2003; is it another LM's"),
        ({"eos_token_id": 7, "bos_token_id": 7}, "expected the LM's end-of-text id 7, got 0"),
    ],
)
def test_a_tokenizer_of_another_lm_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        check_tokenizer(lm_config("gptneox", **changes), tokenizer())


def test_n_beyond_the_layers_is_refused():
    with pytest.raises(UserError, match=r"expected 1 to 4 \(the LM's layers\), got 5"):
        check_fit(lm_config("gptneox"), tokenizer(), vision_width=64, cross_attn_every_n_layers=5)
