"""Which latents a text position reads, and what happens where there are none."""

import pytest
import torch

from flamingo.models.flamingo.cross_attention import GatedCrossAttentionBlock, MediaPass


@pytest.fixture
def block():
    block = GatedCrossAttentionBlock(16, 8, head_dim=4, heads=2)
    block.attn_gate.data.fill_(1.0)
    return block


def test_a_fresh_block_changes_nothing():
    block, hidden = GatedCrossAttentionBlock(16, 8), torch.randn(2, 5, 16)
    media = MediaPass(torch.randn(2, 3, 4, 8), torch.ones(2, 5, dtype=torch.long))
    assert torch.equal(block(hidden, media), hidden)


def test_a_position_reads_the_image_of_its_time_only(block):
    hidden, latents = torch.randn(1, 4, 16), torch.randn(1, 3, 5, 8)
    time = torch.tensor([[0, 1, 1, 3]])
    out = block(hidden, MediaPass(latents, time))
    alone = [
        block(hidden[:, i : i + 1], MediaPass(latents[:, t - 1 : t], torch.ones(1, 1)))
        for i, t in ((1, 1), (2, 1), (3, 3))
    ]
    torch.testing.assert_close(out[:, 1:], torch.cat(alone, dim=1))


def test_without_an_image_the_attention_is_exactly_zero(block):
    hidden = torch.randn(2, 4, 16)
    for time in (0, 9):  # before any image, and a tag beyond all images
        media = MediaPass(torch.randn(2, 2, 5, 8), torch.full((2, 4), time))
        assert torch.equal(block(hidden, media), hidden)
    assert torch.equal(block(hidden, None), hidden)


def test_what_blocks_share_is_made_once_a_pass_in_the_type_of_its_products():
    latents, time = torch.randn(2, 3, 4, 8), torch.tensor([[0, 1, 3], [1, 2, 2]])
    with torch.autocast("cpu", torch.bfloat16):
        media = MediaPass(latents, time)
    assert {media.latents.dtype, media.mask.dtype} == {torch.bfloat16}
    assert MediaPass(latents, time).mask.dtype == torch.float32
    assert MediaPass(latents[:, :1], time).mask is None  # one picture is all there is to see


@pytest.mark.parametrize(
    ("width", "expected"), [(2048, 36_708_354), (2560, 56_109_058), (4096, 139_476_994)]
)
def test_blocks_have_the_published_number_of_parameters(width, expected):
    with torch.device("meta"):
        block = GatedCrossAttentionBlock(width, 1024)
    assert sum(parameter.numel() for parameter in block.parameters()) == expected
