from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pacl.data.pairs import Pairs, PairsReport
from pacl.errors import EnvironmentProblem, InputError
from pacl.training import token_store
from pacl.training.growing_tokens import GrowingTokens
from pacl.training.token_cache import TokenEncoder, build_token_cache

N_IMAGES = 7


class TinyEncoder:
    """Means of 4 x 4 px patches in place of a CLIP; counts the images it encodes."""

    fingerprint = "tiny"
    image_size_px = 8

    def __init__(self) -> None:
        self.n_encoded = 0
        self.fails_after = 10**9

    def prepare(
        self, image: Image.Image, *, size_px: tuple[int, int] | None = None
    ) -> torch.Tensor:
        height, width = size_px or (8, 8)
        return torch.from_numpy(np.array(image.resize((width, height)))).permute(2, 0, 1) / 255

    def encode_patches(
        self, images: torch.Tensor, *, kind: str, layer: int, norm: bool
    ) -> tuple[torch.Tensor, tuple[int, int]]:
        if self.n_encoded >= self.fails_after:
            raise KeyboardInterrupt
        self.n_encoded += len(images)
        means = torch.nn.functional.avg_pool2d(images, 4)
        return means.flatten(2).transpose(1, 2) * layer, (means.shape[2], means.shape[3])


@pytest.fixture
def image_paths(tmp_path: Path) -> list[Path]:
    random = np.random.default_rng(0)
    paths = [tmp_path / f"{number}.png" for number in range(N_IMAGES)]
    for path in paths:
        Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    return paths


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def build(encoder: TinyEncoder, paths: list[Path], directory: Path | None, **options):
    options = {"batch_size": 2} | options
    pairs = Pairs(paths, [["a boat"]] * len(paths), PairsReport(Path(), "", "", ""))
    return build_token_cache(encoder, pairs, directory=directory, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("is_on_disk", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_tokens_are_the_encoders(
    image_paths: list[Path], directory: Path, is_on_disk: bool, dtype: torch.dtype
) -> None:
    encoder, seen = TinyEncoder(), []
    cache = build(
        encoder,
        image_paths,
        directory if is_on_disk else None,
        dtype=dtype,
        layer=-2,
        size_px=(8, 12),
        on_progress=lambda done, total: seen.append((done, total)),
    )
    images = torch.stack(
        [encoder.prepare(Image.open(path), size_px=(8, 12)) for path in image_paths]
    )
    expected, grid = encoder.encode_patches(images, kind="clip", layer=-2, norm=True)
    assert cache.grid == grid == (2, 3)
    assert cache.tokens.dtype == dtype
    torch.testing.assert_close(cache.tokens, expected.to(dtype), rtol=0, atol=0)
    rows = np.array([5, 0, 5])
    (taken,) = cache.iter_batches([rows])
    torch.testing.assert_close(taken, expected[rows].to(dtype), rtol=0, atol=0)
    assert seen == [(2, 7), (4, 7), (6, 7), (7, 7)]
    assert len(cache) == N_IMAGES
    assert not cache.tokens.requires_grad


def test_a_finished_cache_is_only_opened(image_paths: list[Path], directory: Path) -> None:
    first = build(TinyEncoder(), image_paths, directory)
    encoder = TinyEncoder()
    again = build(encoder, image_paths, directory)
    assert encoder.n_encoded == 0
    torch.testing.assert_close(again.tokens, first.tokens, rtol=0, atol=0)
    assert again.grid == first.grid


@pytest.mark.parametrize("n_before", [2, 4, 6])
def test_an_interrupted_build_goes_on(
    image_paths: list[Path], directory: Path, monkeypatch: pytest.MonkeyPatch, n_before: int
) -> None:
    monkeypatch.setattr(token_store, "_SAVE_EVERY", 2)
    encoder = TinyEncoder()
    encoder.fails_after = n_before
    with pytest.raises(KeyboardInterrupt):
        build(encoder, image_paths, directory)
    encoder = TinyEncoder()
    cache = build(encoder, image_paths, directory)
    assert encoder.n_encoded == N_IMAGES - n_before // 4 * 4  # saved every 2 batches of 2
    torch.testing.assert_close(
        cache.tokens, build(TinyEncoder(), image_paths, None).tokens, rtol=0, atol=0
    )


@pytest.mark.parametrize("is_on_disk", [False, True])
def test_unreadable_images_are_noted(
    image_paths: list[Path], directory: Path, is_on_disk: bool
) -> None:
    image_paths[0].write_bytes(b"")
    image_paths[3].write_bytes(image_paths[3].read_bytes()[:60])
    image_paths[6].unlink()
    where = directory if is_on_disk else None
    for _ in range(2):
        cache = build(TinyEncoder(), image_paths, where)
        assert sorted(cache.unreadable) == [0, 3, 6]
        assert "empty" in cache.unreadable[0]
        assert "truncated" in cache.unreadable[3]
        assert "not found" in cache.unreadable[6]
        np.testing.assert_array_equal(cache.readable, [1, 2, 4, 5])


def test_tokens_that_grow_are_those_of_a_cache_and_encoded_once(image_paths: list[Path]) -> None:
    image_paths[3].write_bytes(image_paths[3].read_bytes()[:60])
    pairs = Pairs(image_paths, [["a boat"]] * N_IMAGES, PairsReport(Path(), "", "", ""))
    whole = build(TinyEncoder(), image_paths, None, layer=-2)
    tower, seen = TinyEncoder(), []
    encode = TokenEncoder(tower, layer=-2, batch_size=2)  # type: ignore[arg-type]
    images = GrowingTokens(
        encode, pairs, workers=2, on_progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(7, 7)]
    assert images.unreadable == whole.unreadable
    np.testing.assert_array_equal(images.readable, whole.readable)
    assert tower.n_encoded == 0
    next(images.iter_batches(iter([np.array([1, 2]), np.array([4])])))
    assert tower.n_encoded == 2, "what was read ahead is not lost"
    batches = [np.array(rows) for rows in ([5, 0, 1], [0, 4, 6], [6, 2])]
    for rows, found in zip(batches, images.iter_batches(batches), strict=True):
        torch.testing.assert_close(found, whole.tokens[torch.from_numpy(rows)], rtol=0, atol=0)
    assert tower.n_encoded == 6


def test_nothing_to_encode(image_paths: list[Path]) -> None:
    with pytest.raises(ValueError, match=r"dtype must be .* not torch\.float32"):
        build(TinyEncoder(), image_paths, None, dtype=torch.float32)
    with pytest.raises(InputError, match="no images"):
        build(TinyEncoder(), [], None)
    for path in image_paths:
        path.write_bytes(b"")
    with pytest.raises(InputError, match=r"(?s)none of the images can be read.*0\.png is empty"):
        build(TinyEncoder(), image_paths, None)


def test_a_cache_of_other_settings_is_kept_and_named(
    image_paths: list[Path], directory: Path
) -> None:
    build(TinyEncoder(), image_paths, directory)
    before = (directory / "tokens.bin").read_bytes()
    other = TinyEncoder()
    other.fingerprint = "other"
    with pytest.raises(InputError, match=r"(?s)encoder: tiny there, other here.*layer: -1 there"):
        build(other, image_paths, directory, layer=-3)
    with pytest.raises(InputError, match=r"size_px: None there, \[8, 8\] here"):
        build(TinyEncoder(), image_paths, directory, size_px=(8, 8))
    with pytest.raises(InputError, match=r"(?s)images: .*n_images: 7 there, 6 here"):
        build(TinyEncoder(), image_paths[1:], directory)
    Image.new("RGB", (9, 9)).save(image_paths[2])
    with pytest.raises(InputError, match="images: "):
        build(TinyEncoder(), image_paths, directory)
    assert (directory / "tokens.bin").read_bytes() == before


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"settings": 3}', "null"])
def test_a_damaged_cache_is_built_again(
    image_paths: list[Path], directory: Path, content: str
) -> None:
    first = build(TinyEncoder(), image_paths, directory).tokens.clone()
    (directory / "cache.json").write_text(content)
    again = build(TinyEncoder(), image_paths, directory)
    torch.testing.assert_close(again.tokens, first, rtol=0, atol=0)


def test_rows_lost_from_the_file_are_encoded_again(
    image_paths: list[Path], directory: Path
) -> None:
    first = build(TinyEncoder(), image_paths, directory).tokens.clone()
    path = directory / "tokens.bin"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    encoder = TinyEncoder()
    again = build(encoder, image_paths, directory)
    assert encoder.n_encoded == 4
    torch.testing.assert_close(again.tokens, first, rtol=0, atol=0)


def test_a_full_disk_keeps_what_is_finished(
    image_paths: list[Path], directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_store, "_SAVE_EVERY", 1)
    save_state, n_saves = token_store._save_state, []

    def full_at_third(*arguments) -> None:
        n_saves.append(1)
        if len(n_saves) == 3:
            raise OSError(28, "No space left on device")
        save_state(*arguments)

    monkeypatch.setattr(token_store, "_save_state", full_at_third)
    with pytest.raises(EnvironmentProblem, match=r"(?s)cannot write.*No space left"):
        build(TinyEncoder(), image_paths, directory)
    assert json.loads((directory / "cache.json").read_text())["n_done"] == 4
    encoder = TinyEncoder()
    build(encoder, image_paths, directory)
    assert encoder.n_encoded == 3
