"""The loss across ranks: several processes with parts of a batch equal one with all of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed
from torch.multiprocessing.spawn import spawn

from pacl.cli import main
from pacl.errors import PaclError
from pacl.modeling.compatibility import patch_compatibility
from pacl.modeling.embedder import VisionEmbedder
from pacl.modeling.loss import (
    contrastive_loss,
    contrastive_loss_across_ranks,
    gather_texts,
    sigmoid_loss,
)
from pacl.runtime import distributed as ranks
from pacl.runtime.distributed import rank, sum_gradients, world_size

WORLD = 3
PER_RANK = 2
TEMPERATURE = 0.2


def draw() -> tuple[Tensor, Tensor, Tensor, VisionEmbedder]:
    """Tokens, texts, positives and an embedder of the joined batch, the same wherever drawn."""
    generator = torch.Generator().manual_seed(0)
    n_images = WORLD * PER_RANK
    tokens = torch.randn(n_images, 5, 4, generator=generator, dtype=torch.float64)
    texts = torch.randn(n_images, 3, generator=generator, dtype=torch.float64)
    positives = torch.rand(n_images, n_images, generator=generator) < 0.3
    positives[1] = False  # an image that no text describes, and a text of no image
    positives[:, 4] = False
    embedder = VisionEmbedder(4, 3).double()
    embedder.init_random(generator=generator)
    return tokens, texts, positives, embedder


def on_one_process(*, has_own_captions: bool) -> tuple[Tensor, list[Tensor], Tensor]:
    tokens, texts, positives, embedder = draw()
    scale = torch.tensor(7.0, dtype=torch.float64, requires_grad=True)
    texts.requires_grad_()
    compatibility = patch_compatibility(embedder(tokens), texts, patch_temperature=TEMPERATURE)
    loss = contrastive_loss(compatibility, scale, positives=None if has_own_captions else positives)
    loss.backward()
    return loss.detach(), [p.grad for p in (*embedder.parameters(), scale)], texts.grad  # type: ignore[return-value]


def on_a_rank(number: int, directory: str) -> None:
    place = f"file://{directory}/store"
    distributed.init_process_group("gloo", init_method=place, rank=number, world_size=WORLD)
    assert (rank(), world_size()) == (number, WORLD)
    results = []
    own = slice(number * PER_RANK, (number + 1) * PER_RANK)
    for has_own_captions in (True, False):
        tokens, texts, positives, embedder = draw()
        if has_own_captions:
            positives = torch.eye(len(positives), dtype=torch.bool)
        scale = torch.nn.Parameter(torch.tensor(7.0, dtype=torch.float64))
        own_texts = texts[own].clone().requires_grad_()
        compatibility = patch_compatibility(
            embedder(tokens[own]), gather_texts(own_texts), patch_temperature=TEMPERATURE
        )
        loss = contrastive_loss_across_ranks(compatibility, scale, positives=positives[own])
        loss.backward()
        parameters = [*embedder.parameters(), scale]
        sum_gradients(parameters)
        results.append((loss.detach(), [p.grad for p in parameters], own_texts.grad))
    torch.save(results, f"{directory}/{number}.pt")
    distributed.destroy_process_group()


def sigmoid_on_a_rank(number: int, directory: str) -> None:
    place = f"file://{directory}/store"
    distributed.init_process_group("gloo", init_method=place, rank=number, world_size=WORLD)
    own = slice(number * PER_RANK, (number + 1) * PER_RANK)
    torch.save(sigmoid_of_rows(own), f"{directory}/{number}.pt")
    distributed.destroy_process_group()


def sigmoid_of_rows(own: slice) -> tuple[Tensor, Tensor, list[Tensor]]:
    """The loss, the gradient of some rows, and that of scale and bias from these rows."""
    tokens, texts, positives, embedder = draw()
    with torch.no_grad():
        compatibility = patch_compatibility(embedder(tokens), texts, patch_temperature=TEMPERATURE)
    rows = compatibility[own].requires_grad_()
    numbers = [torch.tensor(value).double().requires_grad_() for value in (7.0, -2.0)]
    left_out = compatibility > 0.5
    loss = sigmoid_loss(rows, *numbers, positives=positives[own], left_out=left_out[own])
    of_rows, *of_numbers = torch.autograd.grad(loss, [rows, *numbers])
    return loss.detach(), of_rows, of_numbers


@pytest.mark.slow
def test_the_sigmoid_loss_of_ranks_together_is_that_of_one_process(tmp_path: Path) -> None:
    loss, of_rows, of_numbers = sigmoid_of_rows(slice(None))
    spawn(sigmoid_on_a_rank, (str(tmp_path),), nprocs=WORLD)
    results = [torch.load(tmp_path / f"{number}.pt") for number in range(WORLD)]
    for result in results:
        torch.testing.assert_close(result[0], loss, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(torch.cat([result[1] for result in results]), of_rows)
    for place, expected in enumerate(of_numbers):
        torch.testing.assert_close(sum(result[2][place] for result in results), expected)


@pytest.mark.slow
def test_ranks_together_equal_one_process(tmp_path: Path) -> None:
    spawn(on_a_rank, (str(tmp_path),), nprocs=WORLD)
    results = [torch.load(tmp_path / f"{number}.pt") for number in range(WORLD)]
    for case, has_own_captions in enumerate((True, False)):
        loss, gradients, of_texts = on_one_process(has_own_captions=has_own_captions)
        for number in range(WORLD):
            own = slice(number * PER_RANK, (number + 1) * PER_RANK)
            torch.testing.assert_close(
                results[number][case], (loss, gradients, of_texts[own]), rtol=1e-12, atol=1e-14
            )
        assert all(torch.equal(results[0][case][0], result[case][0]) for result in results)


def test_pairs_left_out_are_the_same_on_one_process_as_across() -> None:
    compatibility = torch.rand(4, 4, dtype=torch.float64) * 2 - 1
    positives, left_out = torch.eye(4).bool(), torch.rand(4, 4) < 0.5
    across = contrastive_loss_across_ranks(
        compatibility, 7.0, positives=positives, left_out=left_out
    )
    torch.testing.assert_close(across, contrastive_loss(compatibility, 7.0, left_out=left_out))


@pytest.mark.parametrize("has_own_captions", [True, False])
def test_one_process_needs_no_group(has_own_captions: bool) -> None:
    tokens, texts, positives, embedder = draw()
    positives = torch.eye(len(positives), dtype=torch.bool) if has_own_captions else positives
    compatibility = patch_compatibility(
        embedder(tokens), gather_texts(texts), patch_temperature=TEMPERATURE
    )
    scale = torch.nn.Parameter(torch.tensor(7.0, dtype=torch.float64))
    loss = contrastive_loss_across_ranks(compatibility, scale, positives=positives)
    loss.backward()
    sum_gradients(embedder.parameters())
    expected, gradients, _ = on_one_process(has_own_captions=has_own_captions)
    torch.testing.assert_close(loss.detach(), expected, rtol=1e-12, atol=1e-14)
    ours = [p.grad for p in (*embedder.parameters(), scale)]
    torch.testing.assert_close(ours, gradients, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("shape", [(3, 0), (0, 3), (0, 0)])
def test_no_text_or_no_image_costs_nothing(shape: tuple[int, int]) -> None:
    compatibility = torch.zeros(shape, requires_grad=True)
    loss = contrastive_loss_across_ranks(
        compatibility, 7.0, positives=torch.zeros(shape, dtype=torch.bool)
    )
    loss.backward()
    assert loss.item() == 0


@pytest.mark.parametrize("n", [0, 1, 7, 64])
@pytest.mark.parametrize("together", [1, 2, 5, 100])
@pytest.mark.parametrize("n_processes", [1, 2, 3])
def test_shares_cover_all_rows_and_keep_groups_whole(
    n: int, together: int, n_processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranks, "world_size", lambda: n_processes)
    rows: list[int] = []
    for number in range(n_processes):
        monkeypatch.setattr(ranks, "rank", lambda number=number: number)
        share = ranks.own_share(n, together=together)
        assert share.start % together == 0 or share.start == n
        rows += range(n)[share]
    assert rows == list(range(n))


# ---- joining and losing the others ------------------------------------------------------------


LAUNCHED = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}


@pytest.mark.parametrize("changes", [{"WORLD_SIZE": "1"}, {"RANK": None}, {"MASTER_ADDR": None}])
def test_without_a_launcher_there_is_nothing_to_join(
    changes: dict[str, str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (LAUNCHED | changes).items():
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    ranks.join()
    assert world_size() == 1


def test_the_quickstart_takes_no_launcher(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in LAUNCHED.items():
        monkeypatch.setenv(name, value)
    assert main(["quickstart"]) == 2
    assert "the quickstart runs on one process" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("n_processes", "message", "expected"),
    [
        (2, "[gloo/transport/tcp/pair.cc:534] Connection closed by peer", PaclError),
        (1, "[gloo/transport/tcp/pair.cc:534] Connection closed by peer", RuntimeError),
        (2, "some other trouble", RuntimeError),
    ],
)
def test_a_lost_process_is_named(
    n_processes: int, message: str, expected: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranks, "world_size", lambda: n_processes)
    with pytest.raises(expected) as caught, ranks.lost_processes_named():
        raise RuntimeError(message)
    assert ("lost the others" in str(caught.value)) == (expected is PaclError)
