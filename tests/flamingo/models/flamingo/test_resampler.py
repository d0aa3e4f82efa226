"""Size, independence of images, and the published number of parameters."""

import torch

from flamingo.models.flamingo.resampler import PerceiverResampler


def test_any_number_of_tokens_becomes_64_latents():
    resampler = PerceiverResampler(32, depth=1)
    for num_tokens in (1, 16, 50):
        assert resampler(torch.randn(3, num_tokens, 32)).shape == (3, 64, 32)


def test_an_image_does_not_see_the_others():
    resampler, tokens = PerceiverResampler(32, depth=2), torch.randn(3, 10, 32)
    torch.testing.assert_close(resampler(tokens)[1:2], resampler(tokens[1:2]), atol=1e-5, rtol=1e-5)


def test_vit_l_gives_the_published_number_of_parameters():
    with torch.device("meta"):
        resampler = PerceiverResampler(1024)
    assert sum(parameter.numel() for parameter in resampler.parameters()) == 63_019_008
