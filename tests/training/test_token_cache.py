from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pacl.data.pairs import Pairs, PairsReport
from pacl.errors import EnvironmentProblem, InputError
from pacl.runtime.files import disk_problems_named
from pacl.training import token_store
from pacl.training.growing_tokens import GrowingTokens
from pacl.training.token_cache import (
    TokenCache,
    TokenEncoder,
    build_token_cache,
    fill_token_store,
    open_token_store,
)

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


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_store, "SHARD_ROWS", 3)


def pairs_of(paths: list[Path]) -> Pairs:
    return Pairs(paths, [["a boat"]] * len(paths), PairsReport(Path(), "", "", ""))


def build(
    encoder: TinyEncoder, paths: list[Path], directory: Path | None, on_progress=None, **options
) -> TokenCache:
    encode = TokenEncoder(encoder, **({"batch_size": 2} | options))  # type: ignore[arg-type]
    return build_token_cache(encode, pairs_of(paths), directory=directory, on_progress=on_progress)


def tokens(cache: TokenCache) -> torch.Tensor:
    return cache.take(np.arange(len(cache)))


def assert_same(first: TokenCache, second: TokenCache) -> None:
    torch.testing.assert_close(tokens(first), tokens(second), rtol=0, atol=0)
    assert first.grid == second.grid


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
    assert tokens(cache).dtype == dtype
    torch.testing.assert_close(tokens(cache), expected.to(dtype), rtol=0, atol=0)
    torch.testing.assert_close(cache[4], expected[4].to(dtype), rtol=0, atol=0)
    rows = np.array([5, 0, 5])
    (taken,) = cache.iter_batches([rows])
    torch.testing.assert_close(taken, expected[rows].to(dtype), rtol=0, atol=0)
    of_shards = [(2, 7), (3, 7), (5, 7), (6, 7), (7, 7)]
    assert seen == (of_shards if is_on_disk else [(2, 7), (4, 7), (6, 7), (7, 7)])
    assert len(cache) == N_IMAGES
    assert not tokens(cache).requires_grad


def test_each_thread_encodes_some_of_the_images_alone() -> None:
    class Noting(TinyEncoder):
        """Notes how many images came at once, and on how many threads they are encoded."""

        def __init__(self) -> None:
            super().__init__()
            self.calls: list[tuple[int, int]] = []

        def encode_patches(
            self, images: torch.Tensor, **options: Any
        ) -> tuple[torch.Tensor, tuple[int, int]]:
            self.calls.append((len(images), torch.get_num_threads()))
            return super().encode_patches(images, **options)

    images = torch.rand(20, 3, 8, 12)
    expected, grid = TinyEncoder().encode_patches(images, kind="clip", layer=-1, norm=True)
    for n_threads in (1, 3):
        encoder = Noting()
        torch.set_num_threads(n_threads)
        try:
            found, found_grid = TokenEncoder(encoder, dtype=torch.bfloat16)(images)  # type: ignore[arg-type]
        finally:
            torch.set_num_threads(1)
        assert sorted(encoder.calls) == [(4, 1), (8, 1), (8, 1)]
        assert torch.equal(found, expected.bfloat16())
        assert found_grid == grid


def test_training_in_bfloat16_encodes_more_images_than_one_thread_takes() -> None:
    images = torch.rand(20, 3, 8, 12)
    expected, _ = TinyEncoder().encode_patches(images, kind="clip", layer=-1, norm=True)
    with torch.autocast("cpu", torch.bfloat16):  # `pacl train` opens its data under it
        found, _ = TokenEncoder(TinyEncoder(), dtype=torch.float16)(images)  # type: ignore[arg-type]
    assert torch.equal(found, expected.half())


def test_a_finished_cache_is_only_opened(image_paths: list[Path], directory: Path) -> None:
    first = build(TinyEncoder(), image_paths, directory)
    encoder = TinyEncoder()
    again = build(encoder, image_paths, directory)
    assert encoder.n_encoded == 0
    assert_same(again, first)


@pytest.mark.parametrize("n_before", [2, 4, 6])
def test_an_interrupted_build_resumes_at_its_shards(
    image_paths: list[Path], directory: Path, n_before: int
) -> None:
    encoder = TinyEncoder()
    encoder.fails_after = n_before
    with pytest.raises(KeyboardInterrupt):
        build(encoder, image_paths, directory)
    encoder = TinyEncoder()
    cache = build(encoder, image_paths, directory)
    assert encoder.n_encoded == N_IMAGES - n_before // 3 * 3
    assert_same(cache, build(TinyEncoder(), image_paths, None))
    assert {path.suffix for path in directory.iterdir()} == {".bin", ".json"}


def test_parts_of_several_processes_are_one_cache(image_paths: list[Path], directory: Path) -> None:
    numbers = []
    for part in range(2):
        encode = TokenEncoder(TinyEncoder(), batch_size=2)  # type: ignore[arg-type]
        store = open_token_store(encode, pairs_of(image_paths), directory)
        fill_token_store(store, encode, pairs_of(image_paths), part=(part, 2))
        numbers.append(encode.tower.n_encoded)  # type: ignore[attr-defined]
    assert numbers == [4, 3]
    encoder = TinyEncoder()
    assert_same(build(encoder, image_paths, directory), build(TinyEncoder(), image_paths, None))
    assert encoder.n_encoded == 0


def test_a_damaged_shard_is_refused_when_it_is_read_and_mended_by_a_check(
    image_paths: list[Path], directory: Path
) -> None:
    build(TinyEncoder(), image_paths, directory)
    path = directory / "00001.bin"
    content = bytearray(path.read_bytes())
    content[5] ^= 1
    path.write_bytes(content)
    cache = build(TinyEncoder(), image_paths, directory)
    cache.take(np.array([0, 6, 2]))
    with pytest.raises(EnvironmentProblem, match=r"(?s)00001\.bin is damaged.*delete it"):
        cache.take(np.array([0, 4]))
    encode = TokenEncoder(TinyEncoder(), batch_size=2)  # type: ignore[arg-type]
    store = open_token_store(encode, pairs_of(image_paths), directory)
    fill_token_store(store, encode, pairs_of(image_paths), is_verified=True)
    assert encode.tower.n_encoded == 3  # type: ignore[attr-defined]
    assert_same(
        build(TinyEncoder(), image_paths, directory), build(TinyEncoder(), image_paths, None)
    )


@pytest.mark.parametrize("n_done", [N_IMAGES, 4])
def test_a_cache_in_one_file_as_before_is_used_if_it_is_complete(
    image_paths: list[Path], directory: Path, n_done: int
) -> None:
    whole = build(TinyEncoder(), image_paths, None)
    encode = TokenEncoder(TinyEncoder(), batch_size=2)  # type: ignore[arg-type]
    settings = asdict(open_token_store(encode, pairs_of(image_paths), directory).settings)
    del settings["precision"]
    facts = {"n_done": n_done, "width": 3, "grid": [2, 2], "unreadable": {}}
    facts |= {"format": "pacl-tokens-1", "settings": settings}
    (directory / "cache.json").write_text(json.dumps(facts))
    content = tokens(whole)[:n_done].contiguous().view(torch.int16).numpy().tobytes()
    (directory / "tokens.bin").write_bytes(content)
    encoder = TinyEncoder()
    assert_same(build(encoder, image_paths, directory), whole)
    assert encoder.n_encoded == (0 if n_done == N_IMAGES else N_IMAGES)
    assert (directory / "tokens.bin").exists() == (n_done == N_IMAGES)
    with pytest.raises(InputError, match="layer: -1 there, -2 here"):
        build(TinyEncoder(), image_paths, directory, layer=-2)


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
    whole = build(TinyEncoder(), image_paths, None, layer=-2)
    tower, seen = TinyEncoder(), []
    encode = TokenEncoder(tower, layer=-2, batch_size=2)  # type: ignore[arg-type]
    images = GrowingTokens(
        encode,
        pairs_of(image_paths),
        workers=2,
        on_progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(7, 7)]
    assert images.unreadable == whole.unreadable
    np.testing.assert_array_equal(images.readable, whole.readable)
    assert tower.n_encoded == 0
    next(images.iter_batches(iter([np.array([1, 2]), np.array([4])])))
    assert tower.n_encoded == 2, "what was read ahead is not lost"
    batches = [np.array(rows) for rows in ([5, 0, 1], [0, 4, 6], [6, 2])]
    for rows, found in zip(batches, images.iter_batches(batches), strict=True):
        torch.testing.assert_close(found, whole.take(rows), rtol=0, atol=0)
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
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
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
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before


@pytest.mark.parametrize("name", ["cache.json", "00000.json", "00002.json"])
@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"settings": 3, "unreadable": 3}', "null"]
)
def test_damaged_facts_are_written_again(
    image_paths: list[Path], directory: Path, content: str, name: str
) -> None:
    first = build(TinyEncoder(), image_paths, directory)
    expected = tokens(first)
    (directory / name).write_text(content)
    encoder = TinyEncoder()
    assert torch.equal(tokens(build(encoder, image_paths, directory)), expected)
    assert encoder.n_encoded == {"cache.json": 0, "00000.json": 3, "00002.json": 1}[name]


def test_rows_lost_from_a_file_are_encoded_again(image_paths: list[Path], directory: Path) -> None:
    expected = tokens(build(TinyEncoder(), image_paths, directory))
    path = directory / "00001.bin"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    (directory / "00002.bin").unlink()
    encoder = TinyEncoder()
    assert torch.equal(tokens(build(encoder, image_paths, directory)), expected)
    assert encoder.n_encoded == 4


def test_a_full_disk_keeps_what_is_finished(
    image_paths: list[Path], directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, n_writes = token_store.write_atomically, []

    def full_at_third(path: Path, content: bytes) -> None:
        n_writes.append(path)
        if len(n_writes) == 3:
            with disk_problems_named(path):
                raise OSError(28, "No space left on device")
        write(path, content)

    monkeypatch.setattr(token_store, "write_atomically", full_at_third)
    with pytest.raises(EnvironmentProblem, match=r"(?s)cannot write.*No space left"):
        build(TinyEncoder(), image_paths, directory)
    encoder = TinyEncoder()
    build(encoder, image_paths, directory)
    assert encoder.n_encoded == 4
