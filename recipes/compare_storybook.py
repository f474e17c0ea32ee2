"""Compare training-free baselines, PACL and a supervised ceiling on Storybook: one table.

    python recipes/compare_storybook.py runs/comparison --paper-run runs/paper \
        --docs docs/benchmarks.md

Every row reads the same frozen CLIP and is scored on the same unseen scenes, by mIoU, under each
preset, without and with PAMR. "PACL (paper)" needs an embedder trained with `pacl train --paper`
on that CLIP; without --paper-run its row is left out. The supervised ceiling is a linear probe on
the frozen tokens that PACL reads, fitted to the masks of other scenes. Finished cells are kept in
the output folder and not repeated; after an interrupt the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pacl.api import Model, load
from pacl.datasets.segmentation.folder import FolderDataset
from pacl.datasets.storybook import draw_storybook
from pacl.evaluation.predictor import PLAIN, WITH_PAMR, Predictor, build_predictor
from pacl.evaluation.presets import PRESETS, build_preset
from pacl.evaluation.probe import TokenChoice, build_probe_scorer, fit_linear_probe
from pacl.evaluation.records import digest
from pacl.evaluation.run import complete
from pacl.evaluation.scoreboard import SegmentationScores
from pacl.evaluation.task import Task, build_task
from pacl.inference.config import SegmentConfig
from pacl.modeling.names import find_source
from pacl.modeling.pacl import Pacl

BASELINES = {
    "CLIP": "clip",
    "MaskCLIP": "maskclip",
    "SCLIP": "sclip",
    "ClearCLIP": "clearclip",
    "NACLIP": "naclip",
}
BEGIN, END = "<!-- begin: compare_storybook -->", "<!-- end: compare_storybook -->"


@dataclass(frozen=True)
class Method:
    """A row: its name and how it is put under a protocol."""

    name: str
    predict_with: Callable[[Task], Predictor]


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    folders = draw_storybook(
        args.output / "storybook", counts={"test": args.n_test, "validation": args.n_validation}
    )
    test, validation = FolderDataset(folders["test"]), FolderDataset(folders["validation"])
    methods = build_methods(args, validation)
    scores: dict[tuple[str, str], dict[str, Any]] = {}
    for preset in args.presets:
        config = SegmentConfig(batch_size=args.batch_size)
        task = build_task(
            "storybook", test, preset=build_preset(preset, "storybook"), config=config,
            use_pamr=True,
        )  # fmt: skip
        for method in methods:
            scores[method.name, preset] = score(method, task, args.output)
    table = as_markdown(scores, args)
    print(table)
    (args.output / "comparison.md").write_text(table, encoding="utf-8")
    if args.docs is not None:
        insert(table, args.docs)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--model", default="storybook", help="the CLIP with PACL's embedder")
    parser.add_argument("--paper-run", type=Path, help="output of `pacl train --paper`")
    parser.add_argument("--presets", nargs="+", default=["paper", "sclip"], choices=PRESETS)
    parser.add_argument("--n-test", type=int, default=300, help="scenes to score on")
    parser.add_argument("--n-validation", type=int, default=300, help="scenes to fit the probe on")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--docs", type=Path, help="put the table between its marks in this file")
    return parser.parse_args(argv)


def build_methods(args: argparse.Namespace, validation: FolderDataset) -> list[Method]:
    """All rows, on one frozen CLIP."""
    ours = load(args.model)
    encoder = ours.pacl.encoder
    models = {
        name: Model(Pacl(encoder=encoder, embedder=None, token_kind=kind))
        for name, kind in BASELINES.items()
    }
    if args.paper_run is not None:
        run = find_source(args.paper_run)
        models["PACL (paper)"] = Model(Pacl.from_pretrained(run, encoder=encoder))
    if ours.pacl.has_embedder:
        models["PACL"] = ours
    tokens = TokenChoice(kind=ours.pacl.token_kind, layer=ours.pacl.token_layer)
    probe = fit_linear_probe(encoder, validation, tokens)
    weights = digest([probe.weight.tolist(), probe.bias.tolist()])[:16]
    fingerprint = f"{encoder.fingerprint} {tokens} {weights}"

    def predict_with_probe(task: Task) -> Predictor:
        return Predictor(
            task,
            encoder=encoder,
            score_patches=build_probe_scorer(
                encoder, probe, tokens, patch_stride_px=task.config.patch_stride_px
            ),
            class_of_name=torch.arange(len(task.dataset.labels)),
            logit_scale=1.0,
            fingerprint=fingerprint,
        )

    methods = [Method(name, builder_of(model)) for name, model in models.items()]
    return [*methods, Method("supervised linear probe", predict_with_probe)]


def builder_of(model: Model) -> Callable[[Task], Predictor]:
    return lambda task: build_predictor(model, task)


def score(method: Method, task: Task, output: Path) -> dict[str, Any]:
    """One cell of the table, from its file where it is finished."""
    assert task.preset is not None
    stem = f"{task.preset.name}_{method.name.replace(' ', '-')}"
    path = output / f"{stem}.json"
    predictor = method.predict_with(task)
    key = task.key(predictor.fingerprint)
    if path.is_file():
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["key"] == key:
            return content["rows"]
    state_path = output / f".{stem}.unfinished.npz"
    scores = SegmentationScores(predictor)
    complete(
        scores,
        state_path,
        on_progress=lambda done, total, words: print(
            f"\r{stem}: {done} of {total}, {words}   ", end="", file=sys.stderr
        ),
    )
    print(file=sys.stderr)
    rows = {name: report.to_json() for name, report in scores.reports().items()}
    path.write_text(json.dumps({"key": key, "rows": rows}, indent=1), encoding="utf-8")
    state_path.unlink()
    return rows


def as_markdown(scores: dict[tuple[str, str], dict[str, Any]], args: argparse.Namespace) -> str:
    names = list(dict.fromkeys(name for name, _ in scores))
    header = ["method", *(f"{preset}{row}" for preset in args.presets for row in ("", " + PAMR"))]
    lines = ["| " + " | ".join(header) + " |", "| --- " * len(header) + "|"]
    for name in names:
        cells = [
            f"{scores[name, preset][row]['miou']:.3f}"
            for preset in args.presets
            for row in (PLAIN, WITH_PAMR)
        ]
        lines.append("| " + " | ".join([name, *cells]) + " |")
    paper = "" if args.paper_run is None else f" --paper-run {args.paper_run}"
    command = (
        f"python recipes/compare_storybook.py {args.output} --model {args.model}{paper} "
        f"--presets {' '.join(args.presets)} --n-test {args.n_test} "
        f"--n-validation {args.n_validation}"
    )
    return "\n".join([*lines, "", f"mIoU, {args.n_test} unseen scenes: `{command}`", ""])


def insert(table: str, path: Path) -> None:
    """Put the table between its two marks in a document."""
    text = path.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{path} lacks the marks {BEGIN} and {END}")
    path.write_text(f"{before}{BEGIN}\n{table}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
