"""Evaluation protocols by name: every knob that moves a mIoU, as far as it is known.

A preset is made for one data set, because the published protocols change window, scale and
background rule from one to the next. `sclip`, `naclip`, `tcl`, `maskclip` and `proxyclip` follow
their authors' public code from the image's pixels to its label map (see
`pacl.inference.image_path`); what still differs stands in `notes`. What a protocol's authors have
not published is named in `unknown`; the value there is ours.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from pacl.errors import InputError
from pacl.inference.config import SegmentConfig
from pacl.inference.image_path import OWN_PATH, ImagePath
from pacl.text.templates import IMAGENET80, PAPER7, describe_templates

WITH_BACKGROUND = ("voc21", "context60", "coco-object")
WITH_BACKGROUND_WORDS = ("voc21", "coco-object")
WITH_SYNONYMS = ("voc20", "voc21", "coco-object")
PRECISION_NOTE = "CLIP runs in float32 here, in half precision there"
SCENE5 = (
    "there is a {} in the scene.",
    "there is the {} in the scene.",
    "this is a {} in the scene.",
    "this is the {} in the scene.",
    "this is one {} in the scene.",
)
"""What MaskCLIP adds to the eighty templates."""
TCL_TEMPLATES = (
    *("a bad photo of a {}." if each == "a bad photo of the {}." else each for each in PAPER7),
    "a photo of many {}.",
    "a photo of {}s.",
)
CLIP_PATH = ImagePath(
    size_rule="pixels",
    long_side_px=2048,
    resize_filter="opencv",
    upsampling="twice",
    positions="tenth",
    pamr_at="original",
)
"""SCLIP's code, and after it NACLIP's."""
TCL_PATH = ImagePath(
    size_rule="pixels",
    long_side_px=2048,
    resize_filter="opencv",
    normalisation="imagenet",
    border="pad-both",
    upsampling="twice",
    score="sigmoid",
    pamr_at="windows",
)
MASKCLIP_PATH = ImagePath(
    size_rule="pixels",
    long_side_px=2048,
    resize_filter="opencv",
    normalisation="imagenet",
    border="pad-end",
    upsampling="twice",
    activation="gelu",
)
MASKCLIP_README = {"voc20": 49.5, "context59": 21.7, "coco-stuff171": 12.5}
"""mIoU of ViT-B/16, in percent."""
PROXYCLIP_NAMES = (("boat", "ship"), ("diningtable", "table"))
PROXYCLIP_LEFT_OUT = tuple("lamp door window wardrobe ceiling shelf curtain stair fence".split())
"""Words for the background of Pascal VOC that are not COCO-Object's."""
MASKCLIP_NAMES = (
    ("aeroplane", "airplane"),
    ("playing field", "playingfield"),
    ("solid material", "solid"),
    ("structure", "structural"),
    ("wall panel", "panel wall"),
    ("water drops", "waterdrops"),
    ("window blind", "blind window"),
)
"""Names in MaskCLIP's lists that are other words than ours."""


@dataclass(frozen=True)
class Preset:
    """All knobs of one protocol on one data set."""

    name: str
    benchmark: str
    short_side_px: int | None
    """None: the encoder's own size."""
    window_px: int | None
    """None: the whole image at once."""
    window_stride_px: int | None
    patch_stride_px: int | None = None
    """None: the patch size."""
    templates: tuple[str, ...] = IMAGENET80
    logit_scale: float | None = 40.0
    """Logit scale of the softmax over names; None: the model's own."""
    background: Literal["none", "probability", "entropy"] = "none"
    """Which pixels go to the class "background" besides those where its words win."""
    background_level: float | None = None
    """Lowest probability, or highest entropy in nats, that keeps a pixel from it."""
    background_prompts: Literal["none", "name", "words"] = "none"
    """What competes as the class "background": nothing, its name, or the data set's words."""
    use_synonyms: bool = False
    """Whether classes go by the data set's list of synonyms, their maximum counting."""
    candidates: Literal["all", "present"] = "all"
    """Classes that compete in an image: all, or only those in its truth."""
    pamr_iterations: int | None = None
    """Settings of the refinement that is reported as a second row; None: the protocol has none."""
    pamr_dilations: tuple[int, ...] = ()
    pamr_background_level: float | None = None
    """As background_level, in the row with PAMR; None: the same."""
    comparable: bool = True
    """Whether the result may stand beside published numbers."""
    unknown: tuple[str, ...] = ()
    """Fields that the authors have not published; the values here are ours."""
    notes: tuple[str, ...] = ()
    """Where we knowingly differ from the authors, and where they surprise."""
    path: ImagePath = OWN_PATH
    """How images reach the encoder, and scores come back to their pixels."""
    vocabulary: Literal["plain", "official", "joined"] = "plain"
    """Class names: plain words; the data set's own; the same without spaces, as in the authors'
    files."""
    renames: tuple[tuple[str, str], ...] = ()
    """Words of the vocabulary, and what stands in their place."""
    left_out: tuple[str, ...] = ()
    """Of the data set's words for the background, those that do not compete."""

    def values(self) -> dict[str, Any]:
        """All fields by name; the newest only where they are set, so that old hashes stay."""
        return {
            field.name: asdict(self)[field.name]
            for field in fields(self)
            if field.name not in _NEW or getattr(self, field.name) != field.default
        }

    @property
    def digest(self) -> str:
        """12 hex digits of the SHA-256 over all fields: equal only for equal presets."""
        content = json.dumps(self.values(), sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:12]

    def segment_config(self, *, batch_size: int = 8) -> SegmentConfig:
        """The part that the segmenter carries out; text and candidates are in `candidates.py`.

        Args:
            batch_size: Windows encoded together; it does not change the result.
        """
        return SegmentConfig(
            short_side_px=self.short_side_px,
            window_px=self.window_px,
            window_stride_px=self.window_stride_px,
            patch_stride_px=self.patch_stride_px,
            background=self.background,
            background_level=self.background_level,
            logit_scale=self.logit_scale,
            batch_size=batch_size,
        )

    def describe(self) -> str:
        """The protocol in a few lines, to stand above a score."""
        values: dict[str, Any] = self.values()
        values["templates"] = describe_templates(self.templates)
        values.update(values.pop("path", {}))
        hidden = ("name", "benchmark", "unknown", "notes", "comparable")
        knobs = [f"{knob} {value}" for knob, value in values.items() if knob not in hidden]
        lines = [f"{self.name} on {self.benchmark} ({self.digest}): " + ", ".join(knobs)]
        if not self.comparable:
            lines.append("NOT COMPARABLE with published numbers of the standard protocol")
        if self.unknown:
            lines.append("not published, ours: " + ", ".join(self.unknown))
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


_NEW = ("path", "vocabulary", "renames", "left_out")


def sclip(benchmark: str) -> Preset:
    """SCLIP (Wang et al. 2024): short side 336, windows 224 every 112, 80 templates, scale 40."""
    min_area_share = 0.1 if benchmark == "voc21" else None
    preset = Preset(
        name="sclip",
        benchmark=benchmark,
        short_side_px={"cityscapes": 560, "coco-stuff171": 448}.get(benchmark, 336),
        window_px=224,
        window_stride_px=112,
        logit_scale={"voc21": 65.0, "context60": 50.0, "coco-object": 50.0}.get(benchmark, 40.0),
        use_synonyms=benchmark in WITH_SYNONYMS,
        path=replace(CLIP_PATH, min_area_share=min_area_share),
        vocabulary=_spelling(benchmark),
        notes=(PRECISION_NOTE, *_words_note(benchmark)),
    )
    return _with_probability_rule(preset, level=0.1)


def naclip(benchmark: str) -> Preset:
    """NACLIP (Hajimiri et al. 2025): as SCLIP, Pascal VOC as whole images, PAMR."""
    is_whole = benchmark in ("voc20", "voc21")
    preset = Preset(
        name="naclip",
        benchmark=benchmark,
        short_side_px=560 if benchmark == "cityscapes" else 336,
        window_px=None if is_whole else 224,
        window_stride_px=None if is_whole else 112,
        use_synonyms=benchmark in WITH_SYNONYMS,
        pamr_iterations=10,
        pamr_dilations=(8, 16),
        path=CLIP_PATH,
        vocabulary=_spelling(benchmark),
        notes=(PRECISION_NOTE, *_words_note(benchmark)),
    )
    return _with_probability_rule(preset, level=0.1)


def tcl(benchmark: str) -> Preset:
    """TCL (Cha et al. 2023): short side 448, windows 448 every 224, 9 templates, no synonyms."""
    has_background = benchmark in WITH_BACKGROUND
    return Preset(
        name="tcl",
        benchmark=benchmark,
        comparable=False,  # its masks come from a decoder, and its texts are averaged otherwise
        short_side_px=448,
        window_px=448,
        window_stride_px=224,
        templates=TCL_TEMPLATES,
        logit_scale=None,
        background="probability" if has_background else "none",
        background_level=0.5 if has_background else None,
        pamr_iterations=10,
        pamr_dilations=(1, 2, 4, 8, 12, 24),
        pamr_background_level=0.4 if has_background else None,
        path=TCL_PATH,
        vocabulary="official",
        notes=(
            "a mask is the sigmoid of 10 (cosine - 0.25), where TCL's scale and offset begin; it "
            "learns them, and a decoder that quadruples the patch grid, and mixes in CLIP's own",
            "PAMR refines masks upsampled bilinearly to a quarter of a window, the decoder's size",
            "embeddings of a name in several templates are averaged at unit length, there as they "
            "come",
            *(
                ("a background level of masks means what the model's cosines make of it",)
                if has_background
                else ()
            ),
        ),
    )


def maskclip(benchmark: str) -> Preset:
    """MaskCLIP (Zhou et al. 2022): whole images of short side 512, 85 templates.

    After its public configurations for ViT-B/16; data sets without one follow that of VOC.
    """
    has_background = benchmark in WITH_BACKGROUND
    is_published = benchmark in ("voc20", "context59", "coco-stuff171")
    longest = {"context59": 520, "context60": 520, "cityscapes": 1024}
    return Preset(
        name="maskclip",
        benchmark=benchmark,
        comparable=is_published,
        short_side_px=520 if benchmark in ("context59", "context60") else 512,
        window_px=None,
        window_stride_px=None,
        templates=(*IMAGENET80, *SCENE5),
        background_prompts="name" if has_background else "none",
        path=replace(MASKCLIP_PATH, long_side_px=longest.get(benchmark, 2048)),
        vocabulary="official" if benchmark == "ade150" else "plain",
        renames=() if benchmark == "ade150" else MASKCLIP_NAMES,
        unknown=("background", "background_prompts") if has_background else (),
        notes=(
            "after the authors: exact GELU and 1e-6 in LayerNorm, where OpenAI's weights want "
            "QuickGELU and 1e-5; and ImageNet's mean and deviation, where they want CLIP's",
            *(
                (
                    f"its README: {MASKCLIP_README[benchmark]}; the later re-runs that others "
                    "quote are of another protocol",
                )
                if is_published
                else ("no published figure of ViT-B/16",)
            ),
        ),
    )


def proxyclip(benchmark: str) -> Preset:
    """ProxyCLIP (Lan et al. 2024): as SCLIP, windows 336 every 112, one word per class."""
    is_city = benchmark == "cityscapes"
    preset = Preset(
        name="proxyclip",
        benchmark=benchmark,
        short_side_px=448 if is_city or benchmark == "ade150" else 336,
        window_px=224 if is_city else 336,
        window_stride_px=112,
        path=replace(CLIP_PATH, border="pad-both"),
        vocabulary=_spelling(benchmark),
        renames=PROXYCLIP_NAMES if benchmark in ("voc20", "voc21") else (),
        left_out=PROXYCLIP_LEFT_OUT if benchmark == "coco-object" else (),
        notes=(
            f"{PRECISION_NOTE}, in both towers; the second tower reads its positions as "
            "transformers does",
            "windows that are no whole patches, of images longer than six times their other side, "
            "are padded to whole patches, there to multiples of 56",
            *_words_note(benchmark),
        ),
    )
    level = {"voc21": 0.2, "context60": 0.15, "coco-object": 0.25}.get(benchmark, 0.0)
    return _with_probability_rule(preset, level=level)


def paper(benchmark: str) -> Preset:
    """What is known of PACL's own protocol: 7 templates, patch stride 4, entropy background."""
    has_background = benchmark in WITH_BACKGROUND
    return Preset(
        name="paper",
        benchmark=benchmark,
        short_side_px=None,
        window_px=None,
        window_stride_px=None,
        patch_stride_px=4,
        templates=PAPER7,
        logit_scale=None,
        background="entropy" if has_background else "none",
        background_level=1.5 if has_background else None,
        comparable=False,
        unknown=("short_side_px", "window_px", "logit_scale", "background", "candidates"),
        notes=(
            "the paper masks pixels of an entropy above 1.5 as background; on which data sets is "
            "not known, here on those that score a background",
        ),
    )


def restricted(benchmark: str) -> Preset:
    """As `paper`, with the candidates limited to the classes in the image's own truth."""
    return replace(
        paper(benchmark),
        name="restricted",
        candidates="present",
        notes=("the truth tells which classes compete: far easier than the standard protocol",),
    )


PRESETS: dict[str, Callable[[str], Preset]] = {
    "sclip": sclip,
    "tcl": tcl,
    "naclip": naclip,
    "maskclip": maskclip,
    "proxyclip": proxyclip,
    "paper": paper,
    "restricted": restricted,
}
"""The protocols by the name that the command line uses."""


def build_preset(name: str, benchmark: str) -> Preset:
    """The protocol called name, on a data set (of any name; its own rules are for known ones).

    Raises:
        InputError: There is no such protocol.
    """
    if name not in PRESETS:
        raise InputError(f"no preset called {name!r}", fix=f"choose one of: {', '.join(PRESETS)}")
    return PRESETS[name](benchmark)


def _words_note(benchmark: str) -> tuple[str, ...]:
    if benchmark != "coco-object":
        return ()
    return ('"bed" is a word of the background and of the class, which ties in favour of the '
            "background there: the class is never found",)  # fmt: skip


def _spelling(benchmark: str) -> Literal["official", "joined"]:
    """SCLIP's files leave out the spaces, but for COCO-Object."""
    return "official" if benchmark == "coco-object" else "joined"


def _with_probability_rule(preset: Preset, *, level: float) -> Preset:
    """Words for the background where the data set has one, and a lowest probability."""
    if preset.benchmark not in WITH_BACKGROUND:
        return preset  # a threshold here would take pixels from the classes
    has_words = preset.benchmark in WITH_BACKGROUND_WORDS
    return replace(
        preset,
        background="probability",
        background_level=level,
        background_prompts="words" if has_words else "name",
    )
