"""Packed documents give the logits and gradients that they give alone, for every family."""

import copy

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, MambaConfig, OPTConfig

from flamingo.models.flamingo.model import Flamingo
from flamingo.modules.loss import IGNORED, find_target_positions
from flamingo.modules.packed import find_packing, own_tags, restarted
from mmdata.errors import UserError
from tests.flamingo.models.flamingo.tiny_lms import (
    CONFIGS,
    EOC,
    IMAGE,
    PAD,
    VOCAB,
    make_flamingo,
    make_lm,
)

#: Of documents: ids of text, and where tags are put into it. The third has no image before its
#: end, the fourth none at all: neither may see those of others.
_SHAPES = [(14, [1, 6]), (5, [0]), (9, [8]), (4, []), (12, [0, 3, 7]), (6, [2])]
#: How they are packed: three sequences of unequal length.
_SEQUENCES = [[0, 1, 2], [3, 4], [5]]


def documents() -> tuple[list[Tensor], list[Tensor]]:
    """(ids, labels) of each document."""
    generator = torch.Generator().manual_seed(7)
    all_ids, all_labels = [], []
    for length, tags in _SHAPES:
        ids = torch.randint(3, EOC, (length,), generator=generator)
        ids[torch.tensor(tags, dtype=torch.long)] = IMAGE
        labels = torch.where(ids == IMAGE, IGNORED, ids)
        labels[0] = IGNORED
        all_ids.append(ids)
        all_labels.append(labels)
    return all_ids, all_labels


def pictures(counts: list[int]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(count, 3, 64, 64, generator=generator) for count in counts]


def padded(rows: list[Tensor], fill: int) -> Tensor:
    return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=fill)


def alone(model: Flamingo) -> tuple[list[Tensor], Tensor]:
    """(logits of each document, the loss of all)."""
    all_ids, all_labels = documents()
    counts = [len(tags) for _, tags in _SHAPES]
    ids, labels = padded(all_ids, PAD), padded(all_labels, IGNORED)
    mask = padded([torch.ones_like(one) for one in all_ids], 0)
    out = model(
        ids,
        mask,
        labels,
        images=torch.cat(pictures(counts)),
        images_per_sample=counts,
        loss_reduction="sum",
    )
    return [row[: len(one)] for row, one in zip(out.logits, all_ids, strict=True)], out.loss


def packed(model: Flamingo, *, target_positions: bool = False) -> tuple[list[Tensor], Tensor]:
    """The same, packed."""
    all_ids, all_labels = documents()
    counts = [len(tags) for _, tags in _SHAPES]
    labels = padded([torch.cat([all_labels[d] for d in row]) for row in _SEQUENCES], IGNORED)
    index = [
        torch.cat([torch.full_like(all_ids[d], number) for number, d in enumerate(row)])
        for row in _SEQUENCES
    ]
    out = model(
        padded([torch.cat([all_ids[d] for d in row]) for row in _SEQUENCES], PAD),
        None,
        labels,
        images=torch.cat(pictures(counts)),
        images_per_sample=[sum(counts[d] for d in row) for row in _SEQUENCES],
        document_index=padded(index, -1),
        loss_reduction="sum",
        target_positions=find_target_positions(labels) if target_positions else None,
    )
    if target_positions:
        return [], out.loss
    found = []
    for row, logits in zip(_SEQUENCES, out.logits, strict=True):
        found += logits[: sum(len(all_ids[d]) for d in row)].split([len(all_ids[d]) for d in row])
    return found, out.loss


def packing_flamingo(family: str) -> Flamingo:
    model = make_flamingo(family)
    model.allow_packing()
    return model


def test_logits_are_those_of_each_document_alone(lm_family: str) -> None:
    model = packing_flamingo(lm_family)
    with torch.no_grad():
        expected, loss = alone(model)
        found, packed_loss = packed(model)
        _, of_targets = packed(model, target_positions=True)
    for one, other in zip(found, expected, strict=True):
        assert (one - other).abs().max() <= 5e-5
    torch.testing.assert_close(packed_loss, loss, rtol=1e-5, atol=0)
    torch.testing.assert_close(of_targets, loss, rtol=1e-5, atol=0)


def test_gradients_are_those_of_each_document_alone(lm_family: str) -> None:
    model = packing_flamingo(lm_family)
    model.train()
    gradients = []
    for run in (alone, packed):
        model.zero_grad(set_to_none=True)
        run(model)[1].backward()
        gradients.append(
            {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        )
    expected, found = gradients
    assert expected.keys() == found.keys()
    assert any("gated_cross_attn" in name for name in expected)
    for name, gradient in expected.items():
        difference = (found[name] - gradient).norm() / gradient.norm().clamp(min=1e-12)
        assert difference <= 1e-4, name


def test_a_document_is_not_changed_by_its_neighbours(lm_family: str) -> None:
    model = packing_flamingo(lm_family)
    index = torch.tensor([[0] * 8 + [1] * 7])
    ids = torch.randint(3, EOC, (1, 15), generator=torch.Generator().manual_seed(1))
    ids[0, 0] = ids[0, 10] = IMAGE
    images = torch.cat(pictures([2]))
    with torch.no_grad():
        before = model(ids, images=images, images_per_sample=[2], document_index=index).logits
        ids[0, 1:8] = 5
        images[0] = 0
        after = model(ids, images=images, images_per_sample=[2], document_index=index).logits
    assert (before[0, :8] - after[0, :8]).abs().max() > 1e-2
    assert (before[0, 8:] - after[0, 8:]).abs().max() <= 1e-5


def test_features_stand_for_the_images_that_they_are_of() -> None:
    from flamingo.modules.vision import encode_images

    model = make_flamingo("llama")
    ids = documents()[0][0].unsqueeze(0)
    images = torch.cat(pictures([2]))
    with torch.no_grad():
        expected = model(ids, images=images, images_per_sample=[2]).logits
        tokens = encode_images(model.vision_encoder, images, 8)
        found = model(ids, features=tokens, images_per_sample=[2]).logits
        assert torch.equal(found, expected)
        with pytest.raises(UserError, match="expected one of them"):
            model(ids, images=images, features=tokens, images_per_sample=[2])


def test_positions_and_tags_start_anew_in_each_document() -> None:
    index = torch.tensor([[0, 0, 0, 1, 1, 2, -1], [0, 1, 1, 1, 1, -1, -1]])
    assert restarted(index).tolist() == [[0, 1, 2, 0, 1, 0, 0], [0, 0, 1, 2, 3, 0, 1]]
    tags = torch.tensor([[1, 1, 2, 2, 3, 3, 3], [0, 0, 1, 1, 2, 2, 2]])
    assert own_tags(tags, index).tolist() == [[1, 1, 2, 0, 3, 0, 0], [0, 0, 1, 1, 2, 0, 0]]


def test_a_sliding_window_is_kept_within_documents_longer_than_it() -> None:
    lm = make_lm("mistral")
    assert lm.config.sliding_window == 8  # the documents of 14, 9 and 12 tokens are longer
    assert find_packing(lm).way == "positions"


@pytest.mark.filterwarnings("ignore")
def test_a_recurrent_lm_is_refused_in_one_line() -> None:
    config = MambaConfig(vocab_size=VOCAB, hidden_size=32, num_hidden_layers=2)
    lm = AutoModelForCausalLM.from_config(config).eval()
    with pytest.raises(UserError) as error:
        find_packing(lm)
    assert str(error.value) == (
        "--pack: MambaForCausalLM does not keep packed documents apart (its logits of a document "
        "change with the one before it); train it without --pack"
    )


def test_a_mask_of_ours_never_undoes_a_sliding_window() -> None:
    lm = AutoModelForCausalLM.from_config(CONFIGS["opt"]()).eval()
    assert isinstance(lm.config, OPTConfig)
    windowed = copy.deepcopy(lm)
    windowed.config.sliding_window = 8
    with pytest.raises(UserError, match="attends within 8 tokens"):
        find_packing(windowed)


def test_packed_documents_without_leave_are_an_error() -> None:
    model = make_flamingo("llama")
    ids = torch.tensor([[5, 6, 7]])
    with pytest.raises(UserError, match="allow_packing"):
        model(ids, document_index=torch.zeros_like(ids))
