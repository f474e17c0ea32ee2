"""Merging of alike patches against loops, in the walks of both kinds of towers, and refused."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from checkpoints import write_clip
from foreign_towers import VITS, write_vit
from pacl.errors import InputError
from pacl.modeling.engines import build_engine, packages_of
from pacl.modeling.engines.pytorch import Bfloat16Run
from pacl.modeling.towers import merging
from pacl.modeling.towers.hf import HfClip
from pacl.modeling.towers.merging import SHARE, merge_alike, run_merging, unmerge
from pacl.modeling.towers.token_kinds import TOKEN_KINDS, apply_block
from pacl.modeling.towers.vit import VitTower


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> HfClip:
    return HfClip.from_pretrained(write_clip(tmp_path_factory.mktemp("clip")))


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def groups_of(patches: Tensor, share: float) -> list[list[int]]:
    """Which patches of one image become one token, in the order of the tokens."""
    even, odd = range(0, len(patches), 2), range(1, len(patches), 2)
    pairs = []
    for i in even:
        cosines = [torch.cosine_similarity(patches[i], patches[j], dim=0).item() for j in odd]
        best = max(range(len(cosines)), key=cosines.__getitem__) if cosines else -1
        pairs.append((cosines[best] if cosines else 0.0, i, best))
    n_kept = len(even) - (round(share * len(patches)) if odd else 0)
    pairs.sort()
    merged = [[j] for j in odd]
    for _, i, best in pairs[n_kept:]:
        merged[best].append(i)
    return [[i] for _, i, _ in pairs[:n_kept]] + merged


@pytest.mark.parametrize("rows", [2, 256])
@pytest.mark.parametrize("share", [0.0, 0.25, SHARE, 0.5])
@pytest.mark.parametrize("n_patches", [1, 2, 3, 7, 12])
def test_alike_patches_become_their_mean(
    n_patches: int, share: float, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merging, "ROWS", rows)
    patches = draw(3, n_patches, 5)
    left, places = merge_alike(patches, share=share)
    for of_image, expected, place in zip(left, patches, places, strict=True):
        groups = groups_of(expected, share)
        assert len(of_image) == len(groups)
        for nth, group in enumerate(groups):
            torch.testing.assert_close(of_image[nth], expected[group].mean(dim=0))
            assert (place[group] == nth).all()


def test_two_equal_halves_lose_nothing_by_half() -> None:
    patches = draw(2, 6, 4).repeat_interleave(2, dim=1)
    left, places = merge_alike(patches, share=0.5)
    assert left.shape == (2, 6, 4)
    torch.testing.assert_close(unmerge(left, places), patches)


def test_the_prefix_stays_and_patches_merge_after_the_first_two_blocks() -> None:
    tokens, seen = draw(2, 3 + 20, 4), []

    def block(some: Tensor) -> Tensor:
        seen.append(some.shape[1])
        return some

    left, places = run_merging([block] * 4, tokens, n_prefix=3)
    assert seen == [23, 3 + 11, 3 + 6, 3 + 6]
    assert torch.equal(left[:, :3], tokens[:, :3])
    once, first = merge_alike(tokens[:, 3:], share=SHARE)
    twice, second = merge_alike(once, share=SHARE)
    assert torch.equal(left[:, 3:], twice)
    assert torch.equal(unmerge(left[:, 3:], places), unmerge(unmerge(twice, second), first))


@pytest.mark.parametrize("kind", ["clip", "maskclip", "sclip", "clearclip"])
def test_a_clip_runs_its_blocks_on_what_is_left(encoder: HfClip, kind: str) -> None:
    images = draw(2, 3, 40, 24)
    found, grid = encoder.encode_patches(images, kind=kind, stride_px=4, merges=True)
    tokens, expected_grid = encoder.embed_images(images, stride_px=4)
    assert grid == expected_grid
    *earlier, last = encoder.clip.vision_model.encoder.layers
    left, places = run_merging([partial(apply_block, each) for each in earlier], tokens, n_prefix=1)
    assert left.shape[1] < tokens.shape[1]
    expected = encoder.clip.vision_model.post_layernorm(TOKEN_KINDS[kind](last, left, grid)[:, 1:])
    torch.testing.assert_close(found, expected.gather(1, places[..., None].expand_as(found)))


def test_nothing_merged_is_the_plain_walk(encoder: HfClip, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merging, "SHARE", 0.0)
    expected, _ = encoder.encode_patches(draw(2, 3, 40, 24), stride_px=4)
    found, _ = encoder.encode_patches(draw(2, 3, 40, 24), stride_px=4, merges=True)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", VITS)
def test_other_families_merge_too(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tower = VitTower.from_pretrained(write_vit(name, tmp_path))
    p = tower.patch_size_px
    x = draw(2, 3, 4 * p, 3 * p)
    if tower.family.rotations is not None:
        with pytest.raises(InputError, match="rotates"):
            tower.encode_patches(x, merges=True)
        return
    options: dict[str, Any] = {"stride_px": p // 2}
    expected, grid = tower.encode_patches(x, **options)
    for kind in tower.token_kinds:
        if kind != "naclip":
            found, found_grid = tower.encode_patches(x, kind=kind, merges=True, **options)
            assert found_grid == grid
            assert found[0].unique(dim=0).shape[0] < found.shape[1]
    monkeypatch.setattr(merging, "SHARE", 0.0)
    found, _ = tower.encode_patches(x, merges=True, **options)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["naclip", "scclip"])
def test_kinds_that_ask_for_places_are_refused(encoder: HfClip, kind: str) -> None:
    with pytest.raises(InputError, match=f"{kind} tokens need every patch"):
        encoder.encode_patches(draw(1, 3, 32, 32), kind=kind, merges=True)


@pytest.mark.parametrize("name", ["torch-bf16", "openvino-bf16"])
def test_engines_merge_by_torch_at_their_precision(
    name: str, encoder: HfClip, tmp_path: Path
) -> None:
    for package in packages_of(name):
        pytest.importorskip(package)
    engine = build_engine(name, encoder, cache_dir=tmp_path)
    options: dict[str, Any] = {"kind": "clip", "layer": -1, "stride_px": 4}
    found, grid = engine.encode_patches(draw(1, 3, 32, 40), merges=True, **options)
    tokens, _ = encoder.embed_images(draw(1, 3, 32, 40), stride_px=4)
    expected = Bfloat16Run(encoder.patch_tower(kind="clip", layer=-1, merges=True))(tokens, grid)
    assert torch.equal(found, expected.float())
    assert not list(tmp_path.iterdir())
