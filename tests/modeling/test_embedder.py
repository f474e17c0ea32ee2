"""The vision embedder: its equation, its size, its two starts."""

from __future__ import annotations

import torch

from pacl.modeling.embedder import VisionEmbedder


def test_parameters_for_vit_b_16() -> None:
    embedder = VisionEmbedder(768, 512)
    assert sum(p.numel() for p in embedder.parameters()) == 1_050_112


def test_forward_is_the_papers_block() -> None:
    embedder = VisionEmbedder(6, 4, hidden=5).double()
    tokens = torch.randn(2, 3, 6, dtype=torch.float64)
    hidden = (tokens @ embedder.main_in.weight.T + embedder.main_in.bias).clamp(min=0)
    main = hidden @ embedder.main_out.weight.T + embedder.main_out.bias
    skip = tokens @ embedder.skip.weight.T + embedder.skip.bias
    torch.testing.assert_close(embedder(tokens), main + skip)


def test_hidden_is_as_wide_as_the_joint_space_unless_told() -> None:
    assert VisionEmbedder(6, 4).hidden == 4
    assert VisionEmbedder(6, 4, hidden=9).main_in.out_features == 9


def test_any_leading_dimensions() -> None:
    embedder = VisionEmbedder(6, 4)
    tokens = torch.randn(2, 3, 5, 6)
    torch.testing.assert_close(embedder(tokens)[1, 2], embedder(tokens[1, 2]))


def test_clip_start_is_clips_projection() -> None:
    embedder, projection = VisionEmbedder(6, 4), torch.randn(4, 6)
    embedder.init_clip(projection)
    tokens = torch.randn(3, 6)
    torch.testing.assert_close(embedder(tokens), tokens @ projection.T)


def test_clip_start_wakes_up() -> None:
    """Zeroing both main layers would leave the branch dead for ever."""
    torch.manual_seed(0)
    embedder = VisionEmbedder(6, 4)
    embedder.init_clip(torch.randn(4, 6))
    optimiser = torch.optim.SGD(embedder.parameters(), lr=0.1)
    tokens, wanted = torch.randn(8, 6), torch.randn(8, 4)
    before = embedder.main_in.weight.clone()
    for _ in range(2):
        optimiser.zero_grad()
        (embedder(tokens) - wanted).square().mean().backward()
        optimiser.step()
    assert embedder.main_out.weight.abs().sum() > 0
    assert not torch.equal(embedder.main_in.weight, before)


def test_random_start_follows_its_generator() -> None:
    embedders = [VisionEmbedder(6, 4) for _ in range(3)]
    for embedder, seed in zip(embedders, (1, 1, 2), strict=True):
        embedder.init_random(generator=torch.Generator().manual_seed(seed))
    first, same, other = (torch.cat([p.flatten() for p in e.parameters()]) for e in embedders)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert embedders[0].skip.weight.abs().max() <= 6**-0.5
