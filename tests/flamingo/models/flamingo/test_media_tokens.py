"""The two rows inside embeddings that scale, heads that have a bias, and matrices that grow."""

import pytest
import torch
from torch import nn

from flamingo.modules.language_model import embedding_and_head, resize_vocabulary
from mmdata.errors import UserError
from tests.flamingo.models.flamingo.tiny_lms import EOC, IMAGE, VOCAB, make_flamingo, make_lm, wrap


def test_an_embedding_that_scales_scales_our_rows():
    model = make_flamingo("gemma3")
    embedding = model.lang_encoder.get_input_embeddings()
    scale = embedding.embed_scale
    looked_up = embedding(torch.tensor([[EOC, 3, IMAGE]]))[0]
    rows = model.media_tokens.input_rows
    torch.testing.assert_close(looked_up[[0, 2]], rows * scale)
    torch.testing.assert_close(looked_up[1], embedding.weight[3] * scale)


def test_a_head_with_a_bias_keeps_it():
    lm = make_lm("gptj")
    lm.lm_head.bias.data.normal_()
    model = wrap(lm)
    hidden = torch.randn(1, 2, 32)
    logits = lm.lm_head(hidden)
    ours = hidden @ model.media_tokens.output_rows.T + lm.lm_head.bias[[EOC, IMAGE]]
    torch.testing.assert_close(logits[..., [EOC, IMAGE]], ours)


def test_an_embedding_that_does_something_else_is_refused():
    class Shifted(nn.Embedding):
        def forward(self, ids):
            return super().forward(ids) + 1

    lm = make_lm("llama")
    lm.set_input_embeddings(Shifted(VOCAB, 32))
    with pytest.raises(UserError, match="Shifted: expected an embedding that returns its rows"):
        wrap(lm)


def test_an_lm_without_a_head_is_refused():
    lm = make_lm("llama")
    lm.lm_head = None
    with pytest.raises(UserError, match="expected an input embedding and an output head"):
        embedding_and_head(lm)


def test_grown_rows_are_constants_and_old_ones_stay(lm_family):
    grown = []
    for noise in (1, 2):
        lm = make_lm(lm_family)
        before = lm.get_input_embeddings().weight.detach().clone()
        torch.manual_seed(noise)
        resize_vocabulary(lm, VOCAB + 3)
        weights = [module.weight.detach() for module in embedding_and_head(lm)]
        assert torch.equal(weights[0][:VOCAB], before)
        grown.append([weight[VOCAB:] for weight in weights])
    for one, other in zip(*grown, strict=True):
        assert torch.equal(one, other)
        assert 0.01 < one.std() < 0.04


def test_padding_rows_go(lm_family):
    lm = make_lm(lm_family)
    resize_vocabulary(lm, VOCAB - 4)
    assert {module.weight.shape[0] for module in embedding_and_head(lm)} == {VOCAB - 4}
