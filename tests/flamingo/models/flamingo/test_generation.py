"""What `generate` takes along, ends at, cleans up and refuses."""

import pytest
import torch

from flamingo.models.family import Prompt
from mmdata.errors import UserError
from tests.flamingo.models.flamingo.tiny_lms import EOC, IMAGE, PAD, make_flamingo, prompts


@pytest.fixture
def model():
    return make_flamingo("llama")


def test_an_exception_leaves_no_media_behind(model):
    ids, mask, images, counts = prompts()

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.generate(ids, mask, images, counts, max_new_tokens=3, prefix_allowed_tokens_fn=fail)
    assert not model._context.is_open
    assert model._context.current is None
    assert model(ids[2:], mask[2:]).logits.isfinite().all()


def test_it_ends_at_endofchunk_and_fills_with_padding(model):
    ids, mask, images, counts = prompts()
    with torch.no_grad():
        model.media_tokens.output_rows.fill_(0.0)
        model.lang_encoder.lm_head.weight.mul_(1e-6)
        first = model.lang_encoder.model(ids[:1]).last_hidden_state[0, -1]
        model.media_tokens.output_rows[0] = first  # <|endofchunk|> wins for any such state
    out = model.generate(ids[:1], mask[:1], images[:2], counts[:1], max_new_tokens=6)
    assert EOC in out[0, ids.shape[1] :].tolist()
    assert set(out[0, ids.shape[1] :].tolist()) <= {EOC, PAD}


def test_sampled_sequences_belong_to_their_own_images(model):
    ids, mask, images, counts = prompts()
    options = {"max_new_tokens": 3, "do_sample": True, "top_k": 1, "suppress_tokens": [EOC, IMAGE]}
    several = model.generate(ids, mask, images, counts, num_return_sequences=2, **options)
    single = model.generate(ids, mask, images, counts, **options)
    assert several.tolist() == single.repeat_interleave(2, dim=0).tolist()


def test_more_sequences_than_beams_is_refused(model):
    ids, mask, images, counts = prompts()
    with pytest.raises(UserError, match="num_return_sequences of at most num_beams=1, got 2"):
        model.generate(ids, mask, images, counts, num_return_sequences=2)


def test_a_second_model_is_refused(model):
    ids, mask, images, counts = prompts()
    with pytest.raises(UserError, match="assistant_model cannot be conditioned on images"):
        model.generate(ids, mask, images, counts, assistant_model=model.lang_encoder)


@pytest.mark.parametrize("name", ["cache", "past_key_values", "cache_params"])
def test_a_cache_from_outside_is_refused_under_each_of_its_names(model, name):
    ids, mask, images, counts = prompts()
    with pytest.raises(UserError, match=f"{name} cannot be conditioned on images"):
        model.generate(ids, mask, images, counts, **{name: object()})


def test_a_prompt_that_is_read_in_pieces_keeps_each_piece_at_its_own_images(model):
    """The cache says where a piece begins, whatever transformers calls it."""
    ids, mask, images, counts = prompts()
    whole = model.generate(ids, mask, images, counts, max_new_tokens=4)
    pieces = model.generate(ids, mask, images, counts, max_new_tokens=4, prefill_chunk_size=3)
    assert pieces.tolist() == whole.tolist()


def test_openflamingos_arguments_give_the_same(model):
    ids, mask, images, counts = prompts()
    vision_x = torch.zeros(3, 4, 1, 3, 64, 64)  # two trailing slots that no tag uses
    vision_x[0, :2, 0], vision_x[1, 0, 0] = images[:2], images[2]
    ours = model.generate(ids, mask, images, counts, max_new_tokens=4)
    theirs = model.generate(vision_x=vision_x, lang_x=ids, attention_mask=mask, max_new_tokens=4)
    assert ours.tolist() == theirs.tolist()


def test_padding_is_masked_when_no_mask_is_given(model):
    ids, mask, images, counts = prompts()
    ours = model.generate(ids, None, images, counts, max_new_tokens=4)
    assert ours.tolist() == model.generate(ids, mask, images, counts, max_new_tokens=4).tolist()


def test_a_generated_image_tag_keeps_the_last_image(model):
    """It has no picture of its own; what follows goes on as before, cached or not."""
    ids, mask, images, counts = prompts()
    with torch.no_grad():
        model.media_tokens.output_rows[1] = 50 * torch.randn(32)  # <image> is often the best
    options = {"max_new_tokens": 6, "return_dict_in_generate": True, "output_scores": True}
    cached = model.generate(ids, mask, images, counts, **options)
    plain = model.generate(ids, mask, images, counts, use_cache=False, **options)
    assert IMAGE in cached.sequences[:, ids.shape[1] :].tolist()[0]
    assert cached.sequences.tolist() == plain.sequences.tolist()
    torch.testing.assert_close(cached.scores[-1], plain.scores[-1], atol=1e-3, rtol=1e-4)


def test_mpt_generates_with_its_cache_although_its_config_says_no():
    model = make_flamingo("mpt")
    assert model.lang_encoder.config.use_cache is False
    lengths = []
    model.lang_encoder.transformer.blocks[0].register_forward_pre_hook(
        lambda _, args: lengths.append(args[0].shape[1])
    )
    ids, mask, images, counts = prompts()
    model.generate(ids, mask, images, counts, max_new_tokens=3, suppress_tokens=[EOC])
    assert lengths == [ids.shape[1], 1, 1]


def given_prompts():
    """The prompts of `prompts`, without padding, each with pictures of its own."""
    ids, mask, _, counts = prompts()
    pictures = torch.randint(0, 256, (sum(counts), 3, 64, 64), dtype=torch.uint8)
    rows = [row[is_real.bool()].tolist() for row, is_real in zip(ids, mask, strict=True)]
    return [Prompt(row, own) for row, own in zip(rows, pictures.split(counts), strict=True)]


def test_prompts_are_continued_as_by_generate(model):
    given = given_prompts()
    ids, mask, _, counts = prompts()
    images = model.normalization.applied(torch.cat([one.images for one in given]))
    expected = model.generate(ids, mask, images, counts, max_new_tokens=4)[:, ids.shape[1] :]
    assert model.continue_prompts(given, max_new_tokens=4) == expected.tolist()


def test_a_candidates_score_is_the_probability_of_its_tokens_one_after_the_other(model):
    given = given_prompts()
    texts = [[7, 9], [7], [12, 3, 4]]
    found = model.score(given, [texts] * len(given))
    for prompt, scores in zip(given, found, strict=True):
        images = model.normalization.applied(prompt.images) if len(prompt.images) else None
        for text, score in zip(texts, scores, strict=True):
            expected, ids = 0.0, list(prompt.input_ids)
            for token in text:
                with torch.no_grad():
                    logits = model(
                        torch.tensor([ids]), images=images, images_per_sample=[len(prompt.images)]
                    ).logits
                expected += float(logits[0, -1].log_softmax(-1)[token])
                ids.append(token)
            assert score == pytest.approx(expected, abs=1e-3)
