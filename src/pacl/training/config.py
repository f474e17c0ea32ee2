"""The settings of a training run. Torch is not imported here, so that ``--help`` stays quick."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from pacl.errors import InputError

PAPER: dict[str, Any] = {
    "objective": "pacl",
    "trainable": "embedder",
    "patch_temperature": 1.0,
    "token_layer": -1,
    "init": "random",
    "lr": 5e-4,
    "wd": 0.2,
    "beta1": 0.9,
    "beta2": 0.98,
    "eps": 1e-6,
    "batch_size": 4096,
    "epochs": 10,
    "steps": None,
    "warmup": 0,
    "noun_weight": 1.0,
    "templates": "paper7",
    "augment": "none",
    "pooling": "pacl",
    "null_token": "none",
    "loss": "contrastive",
    "false_negatives": "keep",
    "noun_weight_end": None,
    "patches_per_image": None,
}
"""Every value that the paper publishes; docs/method.md has the sources and what is unknown."""

FREE_TO_CHANGE = frozenset(
    {
        "output",
        "workers",
        "cache",
        "cache_dir",
        "cache_images_gb",
        "checkpoint_every",
        "log_every",
        "images_at_once",
        "val",
        "val_every",
        "probe_images",
        "probe_words",
        "probe_every",
        "log",
    }
)
"""Fields with which a run may be resumed with other values: they do not affect the weights, but for
`cache`, where tokens that are kept are rounded to float16 and with "none" are not."""


@dataclass(frozen=True)
class TrainConfig:
    """Train on image-caption pairs; running the same command again resumes the run."""

    data: Path
    """A CSV, TSV, JSONL, Parquet or COCO captions file; a folder of captioned images; tars, such as
    "shards/{00000..00099}.tar"; a hub data set; or several with weights: "a.tar=2,b.csv"."""

    output: Path
    """Run directory, which `--model` accepts: last/ (the newest checkpoint), best/ (with `--val`),
    card.md, metrics.jsonl and probe/ (images that show what it has learned)."""

    model: str = "storybook"
    """CLIP to build on: a hub id or a local directory in Hugging Face format. With the clip
    objective, a directory without weights describes a new model, which starts at random."""

    vision: str | None = None
    """Vision tower, with `--text` in place of `--model`: a CLIP, or a convolutional network in
    Hugging Face format, whose tower.json may choose layers."""

    text: str | None = None
    """Text tower: a CLIP, or a directory of static word vectors (model2vec's or WordLlama's)."""

    head: Literal["vision", "text", "both"] = "vision"
    """pacl: the side that is trained. vision (the paper's) maps patches to the texts, text maps
    texts to the patches, both maps both to a joint space."""

    image_key: str | None = None
    """Column of the image paths; none: detected by name."""

    caption_key: str | None = None
    """Column of the captions; none: detected by name."""

    recaptions: Path | None = None
    """Table of captions for tars, joined by key (columns key and caption; any size as Parquet or
    JSONL): new captions, and captions of samples without a text."""

    recaptions_mode: Literal["replace", "add"] = "replace"
    """Whether the captions of that table replace those in the tars, or are added to them."""

    objective: Literal["pacl", "clip"] = "pacl"
    """pacl: align patches with a frozen CLIP. clip: train the CLIP itself (pooled embeddings)."""

    trainable: str = ""
    """Parts to train, separated by commas: `embedder` (pacl); `vision`, `text` or `all` (clip).
    Empty: embedder for pacl, all for clip."""

    paper: bool = False
    """Set every value the paper publishes: temperature 1, last layer, random start, batch 4096,
    10 epochs, lr 5e-4, wd 0.2. Overrides the individual options."""

    batch_size: int = 256
    """Images per step; capped to the number of images, with a note."""

    images_at_once: int | None = None
    """Images whose activations are held at a time; none: the whole batch. The step stays that of
    the whole batch: all are scored without a gradient, then recomputed some at a time. They stay on
    one process: with several, best a number that gives each as many parts."""

    epochs: int = 10
    """Passes over the images. Where an image has several captions, each pass draws one."""

    steps: int | None = None
    """Optimiser steps in place of epochs."""

    lr: float = 5e-4
    """Peak learning rate of AdamW; decays to 0 along a cosine over all steps."""

    wd: float = 0.2
    """Weight decay, on matrices only: not on biases, norms and the logit scale."""

    beta1: float = 0.9
    """AdamW's first decay rate."""

    beta2: float = 0.98
    """AdamW's second decay rate."""

    eps: float = 1e-6
    """AdamW's epsilon."""

    warmup: int = 0
    """Steps of linear warm-up before the cosine."""

    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """bf16 runs encoder and embedder in bfloat16; the compatibility is always float32.
    auto: bf16 where the GPU or CPU supports it in hardware."""

    device: str = "auto"
    """auto (a GPU where there is one), cpu, cuda, cuda:1 ..."""

    workers: int = 2
    """Threads that decode images."""

    seed: int = 0
    """Seed of the initial weights, the order of images, captions, templates and augmentation."""

    cache: Literal["auto", "memory", "disk", "none"] = "auto"
    """pacl: where the frozen patch tokens are kept. none: encode the images in every step. With
    several processes, each holds all tokens in memory; on disk they share one file. auto: memory
    for tables, none for tars and mixtures."""

    cache_dir: Path | None = None
    """Folder of tokens that `pacl data cache` wrote or that is to be filled; none: OUTPUT/tokens.
    Implies `--cache disk`."""

    cache_images_gb: float = 4.0
    """Decoded images up to this size are held in memory; beyond it they are decoded per step.
    Used where images are encoded in the step (clip, or cache none). Applies to each
    process."""

    patch_temperature: float = 0.05
    """Temperature τ_p of the softmax over patches; 1 is the paper's. The lower, the
    fewer patches decide: those that fit a text best."""

    pooling: Literal["pacl", "mean", "max", "sparse", "own-caption"] = "pacl"
    """How an image's patches are pooled for a text: pacl (the paper's), mean (CLIP's), max (FILIP's
    best patch), sparse (SPARC's weights); own-caption, which is another objective: an image is
    pooled for its own caption only. Classification uses the same pooling."""

    null_token: Literal["none", "zero", "learn"] = "none"
    """pacl pooling: an extra token that absorbs the weight where no patch fits. zero: its cosine to
    every text is 0; learn: the cosine is learned."""

    patches_per_image: int | None = None
    """Random patches of each image per step, drawn anew each time; none: all patches. A step
    with 64 of 196 cached tokens takes about a third of the time; small data wants more passes."""

    loss: Literal["contrastive", "sigmoid"] = "contrastive"
    """contrastive: CLIP's (the paper's). sigmoid: SigLIP's, with a learned bias."""

    false_negatives: Literal["keep", "equal", "nouns"] = "keep"
    """Captions of other images that may describe an image as well. keep: they stay negatives;
    equal: equal captions are left out; nouns: so are captions whose nouns are all in the image's
    own."""

    token_kind: str = "clip"
    """Last block of the frozen encoder: clip, maskclip, sclip, clearclip or naclip."""

    token_layer: int = -4
    """Block whose patch tokens are used: -1 the last (the paper's), -2 the one before ..."""

    init: Literal["random", "clip"] = "random"
    """Initial weights of the embedder: random, or clip for the checkpoint's visual projection."""

    noun_weight: float = 10.0
    """Weight of the noun loss relative to the caption loss; 0: no nouns."""

    noun_weight_end: float | None = None
    """Noun weight at the end of training, reached linearly; none: constant."""

    templates: str = "paper7"
    """Prompt templates that nouns are put in: paper7, simple or imagenet80."""

    logit_scale: Literal["learn", "fixed"] = "learn"
    """Whether the logit scale is learned (clamped at 100) or stays at its initial value."""

    logit_scale_init: float | None = None
    """Initial logit scale; none: the checkpoint's own, or 20 with the sigmoid loss."""

    logit_bias_init: float = -10.0
    """Initial bias of the sigmoid loss."""

    augment: Literal["none", "flip", "crop"] = "none"
    """Augmentation of images encoded in the step: horizontal flips, or flips and crops (70 to 100 %
    of the area). Leave it off where captions say left and right."""

    keep_patches: float = 1.0
    """clip: share of patches the vision tower sees in each step, drawn at random (FLIP);
    0.5 nearly halves the time of a step."""

    image_size: int | None = None
    """Side in pixels of the squares that images are squeezed into; none: the checkpoint's own
    resizing and centre crop."""

    checkpoint_every: int = 500
    """Steps between checkpoints; one is always written at the end and on an interrupt."""

    log_every: int = 10
    """Steps between lines of metrics.jsonl."""

    val: str | None = None
    """Held-out data, scored as training goes on; the best checkpoint is kept in best/. Pairs in any
    layout of `--data` (up to 500 images, by retrieval), or a folder of images/ and masks/ (by
    mIoU)."""

    val_every: int | None = None
    """Steps between these scores; none: ten over the run."""

    probe_images: tuple[str, ...] = ()
    """Images that are segmented as training goes on, one sheet each time in probe/: files, folders
    or patterns, the first 6; none: a few training images."""

    probe_words: str = ""
    """Words to segment them into, such as "sky,road,dog"; empty: nouns of the captions."""

    probe_every: int | None = None
    """Steps between sheets; none: ten over the run; 0: no sheets."""

    log: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Also log to TensorBoard (in tensorboard/) or Weights & Biases; if that fails, the run goes
    on without."""

    def resolve(self) -> TrainConfig:
        """Return the settings with presets and defaults filled in, checked.

        Raises:
            InputError: A value is out of range, or options exclude each other.
        """
        config = replace(self, **PAPER) if self.paper else self
        if not config.trainable:
            config = replace(config, trainable="embedder" if config.objective == "pacl" else "all")
        if config.cache_dir is not None and config.cache == "auto":
            config = replace(config, cache="disk")
        _check(config)
        return config

    def trainable_parts(self) -> frozenset[str]:
        """Return the set of parts to train: {"embedder"}, or some of {"vision", "text"}."""
        parts = frozenset(part.strip() for part in self.trainable.split(","))
        return frozenset({"vision", "text"}) if parts == {"all"} else parts

    def is_cached(self, *, is_streamed: bool) -> bool:
        """Return whether patch tokens are kept, of data that is streamed or held in memory."""
        is_wanted = not is_streamed and self.augment == "none"
        return self.objective == "pacl" and {"auto": is_wanted, "none": False}.get(self.cache, True)

    def differing_fields(self, saved: dict[str, Any]) -> list[str]:
        """Return the names of the fields that differ from a saved run and would change its weights.

        A field that did not exist when the run was saved counts as having had its default.
        """
        mine = self.to_json()
        known = [field for field in fields(self) if field.name not in FREE_TO_CHANGE]
        return [f.name for f in known if saved.get(f.name, f.default) != mine[f.name]]

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values; paths become strings."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: str(v) if isinstance(v, Path) else v for name, v in values.items()}


def _check(config: TrainConfig) -> None:
    known = {"embedder"} if config.objective == "pacl" else {"vision", "text"}
    parts = config.trainable_parts()
    if not parts <= known:
        raise InputError(
            f"trainable: {', '.join(sorted(parts - known))} cannot be trained here",
            why=f"the {config.objective} objective trains: {', '.join(sorted(known))}",
            fix=f"--trainable {'embedder' if config.objective == 'pacl' else 'all'}",
        )
    _check_towers(config)
    _check_images(config)
    _check_parts(config)
    _check_objective(config)
    limits = {
        "batch_size": config.batch_size >= 2,
        "images_at_once": config.images_at_once is None or config.images_at_once >= 1,
        "epochs": config.epochs >= 1,
        "steps": config.steps is None or config.steps >= 1,
        "lr": config.lr > 0,
        "wd": config.wd >= 0,
        "warmup": config.warmup >= 0,
        "workers": config.workers >= 1,
        "patch_temperature": config.patch_temperature > 0,
        "noun_weight": config.noun_weight >= 0,
        "noun_weight_end": config.noun_weight_end is None or config.noun_weight_end >= 0,
        "patches_per_image": config.patches_per_image is None or config.patches_per_image >= 1,
        "logit_scale_init": config.logit_scale_init is None or 0 < config.logit_scale_init <= 100,
        "keep_patches": 0 < config.keep_patches <= 1,
        "image_size": config.image_size is None or config.image_size >= 1,
        "checkpoint_every": config.checkpoint_every >= 1,
        "log_every": config.log_every >= 1,
        "val_every": config.val_every is None or config.val_every >= 1,
        "probe_every": config.probe_every is None or config.probe_every >= 0,
    }
    for name, is_fine in limits.items():
        if not is_fine:
            raise InputError(f"{name}: {getattr(config, name)} is out of range")


def _check_towers(config: TrainConfig) -> None:
    if (config.vision is None) != (config.text is None):
        raise InputError("vision and text: one tower is named", fix="give both --vision and --text")
    is_foreign = config.vision is not None or config.head != "vision"
    if is_foreign and config.objective == "clip":
        raise InputError(
            "the clip objective trains the CLIP that --model names",
            fix="leave out --vision, --text and --head",
        )
    if is_foreign and config.init == "clip":
        raise InputError(
            "init: clip starts with the projection of a CLIP's vision tower to its own texts",
            fix="--init random",
        )


def _check_images(config: TrainConfig) -> None:
    if config.cache_dir is not None and (config.cache != "disk" or config.objective == "clip"):
        raise InputError(
            "cache_dir: tokens are kept there with --cache disk and the pacl objective"
        )
    is_kept = config.objective == "pacl" and config.cache in ("memory", "disk")
    if config.augment != "none" and is_kept:
        raise InputError(
            f"augment: {config.augment} changes the images in every step, the tokens are cached",
            fix="--cache none",
        )
    if config.keep_patches < 1 and config.objective == "pacl":
        raise InputError(
            "keep_patches: patches are dropped in the clip objective only", fix="--keep-patches 1"
        )


def _check_parts(config: TrainConfig) -> None:
    if config.images_at_once is not None and config.keep_patches < 1:
        raise InputError(
            "images_at_once: which patches are kept is drawn for the whole batch",
            fix="--keep-patches 1, or leave out --images-at-once",
        )


def _check_objective(config: TrainConfig) -> None:
    defaults = {field.name: field.default for field in fields(config)}
    of_patches = ("pooling", "null_token", "patches_per_image")
    changed = [name for name in of_patches if getattr(config, name) != defaults[name]]
    if config.objective == "clip" and changed:
        raise InputError(
            f"{changed[0]}: the clip objective scores whole images, not patches",
            fix="--objective pacl",
        )
    if config.pooling != "pacl" and config.null_token != "none":
        raise InputError(
            f"null_token: {config.pooling} pooling has no softmax that it could take part in",
            fix="--null-token none",
        )
    if not config.noun_weight and (config.noun_weight_end or config.false_negatives == "nouns"):
        raise InputError(
            "noun_weight: at 0 no nouns are read from the captions",
            why="--noun-weight-end and --false-negatives nouns need them",
            fix="a small --noun-weight, such as 0.01",
        )
