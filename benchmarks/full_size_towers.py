"""Towers of full size through every command: time, memory, and whether a resumed run agrees.

    python benchmarks/full_size_towers.py --folder /tmp/towers

Random weights in the real format: DINOv2-B/14 with registers and the texts of CLIP ViT-B/16; both
towers of SigLIP 2 base. Each trains 3 steps on 16 drawn scenes, in one process, in two, and
interrupted and resumed, then segments, evaluates and classifies, each command a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import (
    CLIPConfig,
    CLIPModel,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    PreTrainedModel,
    SiglipConfig,
    SiglipModel,
)

from pacl.datasets.storybook import draw_storybook

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from checkpoints import write_clip
from foreign_towers import write_word_tokenizer

PAIRS = {"dinov2": ("dinov2", "clip"), "siglip2": ("siglip2", "siglip2")}
N_IMAGES, N_STEPS, N_VOCABULARY = 16, 3, 49_408


def write_towers(folder: Path) -> None:
    """Write what is not there yet."""
    if not (folder / "dinov2").is_dir():
        config = Dinov2WithRegistersConfig(image_size=518, patch_size=14, num_register_tokens=4)
        _save(Dinov2WithRegistersModel(config), folder / "dinov2")
    if not (folder / "clip").is_dir():
        write_clip(folder / "clip", size="vit-b-16", with_weights=False)
        values = json.loads((folder / "clip" / "config.json").read_text())
        values["text_config"]["vocab_size"] = N_VOCABULARY
        CLIPModel(CLIPConfig.from_dict(values)).save_pretrained(folder / "clip")
    if not (folder / "siglip2").is_dir():
        tokens = {"bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0}
        text = {"vocab_size": 256_000, "max_position_embeddings": 64, **tokens}
        vision = {"image_size": 224, "patch_size": 16}
        _save(SiglipModel(SiglipConfig(vision_config=vision, text_config=text)), folder / "siglip2")
        write_word_tokenizer(folder / "siglip2")
    draw_storybook(folder / "drawn", counts={"train": N_IMAGES, "test": 4}, size_px=224)


def _save(model: PreTrainedModel, directory: Path) -> None:
    model.save_pretrained(directory)
    (directory / "preprocessor_config.json").write_text("{}")


def run(name: str, arguments: list[str], *, stop_after: Path | None = None) -> None:
    """Run one command, and print its seconds and the peak memory of its largest process.

    Args:
        name: For the table.
        arguments: Of Python.
        stop_after: Send SIGINT when this file exists.
    """
    start = time.perf_counter()
    child = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL)
    while stop_after is not None and not (stop_after.is_file() and stop_after.stat().st_size):
        time.sleep(0.05)
        assert child.poll() is None, f"{name} ended too early"
    if stop_after is not None:
        child.send_signal(signal.SIGINT)
    _, status, usage = os.wait4(child.pid, 0)
    assert stop_after is not None or status == 0, f"{name} failed"
    seconds = time.perf_counter() - start
    print(f"| {name} | {seconds:.0f} | {usage.ru_maxrss / 2**20:.1f} |", flush=True)


def try_pair(folder: Path, pair: str) -> None:
    """Run every command on one pair of towers."""
    vision, text = (str(folder / name) for name in PAIRS[pair])
    options = ["train", "--data", str(folder / "drawn" / "train"), "--vision", vision]
    options += ["--text", text, "--batch-size", "8", "--steps", str(N_STEPS), "--log-every", "1"]
    options += ["--checkpoint-every", "1", "--precision", "fp32", "--device", "cpu"]
    one, two, parts = (folder / "runs" / f"{pair}_{name}" for name in ("one", "two", "parts"))
    two_processes = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    model, test = ["--model", str(one), "--device", "cpu"], folder / "drawn" / "test"
    half = "8" if pair == "siglip2" else "7"

    run(f"{pair}: train", ["-m", "pacl", *options, "--output", str(one)])
    run(
        f"{pair}: train, 2 processes",
        [*two_processes, "-m", "pacl", *options, "--output", str(two)],
    )
    resumed = ["-m", "pacl", *options, "--output", str(parts)]
    run(f"{pair}: train, interrupted", resumed, stop_after=parts / "metrics.jsonl")
    run(f"{pair}: train, resumed", resumed)
    compare(pair, one, two, parts)
    images, labels = str(test / "images"), ["--labels", "sky,sea,house,tree"]
    masks = [
        "--short-side-px",
        "224",
        "--patch-stride-px",
        half,
        "--formats",
        "png",
        "--output",
        str(folder / pair),
    ]
    run(f"{pair}: segment", ["-m", "pacl", "segment", images, *labels, *model, *masks])
    scores = ["--output", str(folder / f"{pair}_scores")]
    run(f"{pair}: evaluate", ["-m", "pacl", "evaluate", str(test), *model, *scores])
    run(f"{pair}: classify", ["-m", "pacl", "classify", images, *labels, *model])


def compare(pair: str, one: Path, two: Path, parts: Path) -> None:
    """Refuse a resumed run that differs in a bit, and two processes that differ beyond rounding."""
    weights = [load_file(run / "last" / "embedder.safetensors") for run in (one, two, parts)]
    for name, value in weights[0].items():
        assert torch.equal(value, weights[2][name]), f"{pair}: {name} of the resumed run differs"
        torch.testing.assert_close(value, weights[1][name], atol=1e-5, rtol=1e-4)
    largest = max((weights[0][name] - weights[1][name]).abs().max() for name in weights[0])
    print(f"| {pair}: resumed equal, 2 processes within {largest:.0e} | | |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--pairs", nargs="+", choices=PAIRS, default=list(PAIRS))
    options = parser.parse_args()
    write_towers(options.folder)
    print("| command | s | peak GiB |\n|---|---:|---:|", flush=True)
    for pair in options.pairs:
        try_pair(options.folder, pair)


if __name__ == "__main__":
    main()
