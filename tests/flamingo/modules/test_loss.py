"""The loss is that of transformers; its parts are what a trainer adds up."""

import torch
from transformers.loss.loss_utils import ForCausalLMLoss

from flamingo.modules.loss import find_target_positions, next_token_loss


def example():
    logits, labels = torch.randn(2, 6, 11), torch.randint(0, 11, (2, 6))
    labels[0, :3], labels[1, 4:] = -100, -100
    return logits, labels


def test_mean_equals_transformers_own():
    logits, labels = example()
    loss, num_targets = next_token_loss(logits, labels)
    torch.testing.assert_close(loss, ForCausalLMLoss(logits, labels, vocab_size=11))
    assert num_targets.item() == 6


def test_target_positions_are_those_before_a_target():
    _, labels = example()
    assert find_target_positions(labels).tolist() == [2, 3, 4, 6, 7, 8]


def test_a_label_in_the_first_place_is_no_target():
    labels = torch.tensor([[5, -100, -100]])
    assert find_target_positions(labels).tolist() == []
    loss, num_targets = next_token_loss(torch.randn(1, 3, 11), labels)
    assert loss.item() == num_targets.item() == 0


def test_the_sum_over_targets_only_is_the_same():
    logits, labels = example()
    total, _ = next_token_loss(logits, labels, reduction="sum")
    positions = find_target_positions(labels)
    part = logits.flatten(0, 1)[positions]
    lean, _ = next_token_loss(part, labels, reduction="sum", target_positions=positions)
    torch.testing.assert_close(lean, total)
