"""CLIP checkpoints, run with transformers: in its own format, or in open_clip's (`open_clip.py`).

transformers provides the modules, the configuration and the tokenizer; the walk through them is our
own (`walk.py`), and so is the reading of weights and preprocessing (`files.py`,
`preprocess.py`). transformers takes seconds to import, so that waits until a CLIP is built.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import copy
import json
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from pacl.errors import InputError
from pacl.modeling.towers import files, open_clip
from pacl.modeling.towers.clip_tokens import TokenizesAsClip, build_tokenizer
from pacl.modeling.towers.families import IMAGENET, refuse_naflex
from pacl.modeling.towers.merging import check_kind
from pacl.modeling.towers.preprocess import PreparesImages, Preprocessing
from pacl.modeling.towers.token_kinds import TOKEN_KINDS, Grid
from pacl.modeling.towers.torchvision_guard import guard_against_torchvision
from pacl.modeling.towers.walk import (
    PatchTower,
    embed_images,
    onednn_products,
    walk_to_cls,
    walk_to_end,
)
from pacl.modeling.towers.whole_walks import CHANNELS, WHOLE_WALKS
from pacl.runtime.files import write_atomically

TRAINABLE_PARTS = {
    "vision": ("vision_model", "visual_projection"),
    "text": ("text_model", "text_projection"),
}
CLIPS = {"clip": "CLIP", "metaclip_2": "MetaClip2"}
"""Models with CLIP's modules, by `model_type`; MetaCLIP 2 has a tokenizer without cleaning."""


class HfClip(PreparesImages, TokenizesAsClip, nn.Module):
    """A CLIP with everything of its checkpoint: both towers, tokenizer, preprocessing. Frozen.

    Build one with `from_pretrained`, or with `from_config` (random weights). No parameter asks
    for a gradient and `train()` keeps evaluation mode, until `unfreeze` names a tower.

    Args:
        clip: A transformers `CLIPModel`.
        tokenizer: The checkpoint's tokenizer.
        preprocessing: The checkpoint's resizing, crop, mean and deviation.
        source: The hub id or directory as the user gave it.
        directory: Where the checkpoint's files lie.
        fingerprint: The weights' fingerprint, where it is already known.

    Attributes:
        image_size_px: Side of the square images that the checkpoint was trained on.
        patch_size_px: Side of a patch.
        width: E, width of the vision tower's tokens.
        joint_width: D, width of the joint space of images and texts.
        text_width: The same, as a text tower states it.
        n_layers: Blocks of the vision tower.
        context_length: Most tokens of a text, start and end tokens included.
    """

    def __init__(
        self,
        clip: Any,
        tokenizer: Any,
        *,
        preprocessing: Preprocessing,
        source: str,
        directory: Path,
        fingerprint: str = "",
    ) -> None:
        super().__init__()
        self.clip = clip.requires_grad_(False).eval()
        self.tokenizer = tokenizer
        self.preprocessing = preprocessing
        self.source = source
        self._directory = directory
        self._fingerprint = fingerprint
        self._trainable: tuple[str, ...] = ()
        self._stretches_positions = False
        vision, text = clip.config.vision_config, clip.config.text_config
        self.image_size_px: int = vision.image_size
        self.patch_size_px: int = vision.patch_size
        self.width: int = vision.hidden_size
        self.joint_width: int = clip.config.projection_dim
        self.text_width: int = self.joint_width
        is_openais = clip.config.model_type == "clip" and vision.hidden_act == "quick_gelu"
        knows_channels = self.width in CHANNELS and is_openais
        whole = (kind for kind in WHOLE_WALKS if kind != "rfclip" or knows_channels)
        self.token_kinds = (*TOKEN_KINDS, *whole)
        self.cleans_texts: bool = clip.config.model_type == "clip"
        self.n_layers: int = vision.num_hidden_layers
        self.context_length: int = text.max_position_embeddings

    # ---- building and saving --------------------------------------------------------------

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> HfClip:
        """Load a CLIP by hub id or from a local directory (which never touches the network).

        Raises:
            InputError: Not a CLIP checkpoint, files missing, truncated or pickled, or weights
                that do not fit the configuration.
            EnvironmentProblem: The hub cannot be reached.
        """
        directory = files.find_checkpoint(source)
        with torch.device("meta"):  # no time for random weights that are overwritten at once
            clip = _build_clip(directory)
        weights = _layout(directory).read_weights(directory)
        clip = clip.to_empty(device="cpu").to(dtype)
        files.fill_weights(clip, weights, directory)
        for embeddings in (clip.vision_model.embeddings, clip.text_model.embeddings):
            ids = embeddings.position_ids  # 0, 1, 2, ...: no checkpoint stores them
            ids.copy_(torch.arange(ids.shape[-1]))
        return cls._assemble(clip, source, directory, files.fingerprint(weights)).to(device)

    @classmethod
    def from_config(cls, config_dir: str | Path) -> HfClip:
        """Build a CLIP with random weights, to be trained from scratch.

        Args:
            config_dir: Holds config.json, the tokenizer's files and preprocessor_config.json.

        Torch's global seed decides the weights.
        """
        directory = files.find_checkpoint(config_dir)
        return cls._assemble(_build_clip(directory), config_dir, directory, "")

    @classmethod
    def _assemble(cls, clip: Any, source: str | Path, directory: Path, fingerprint: str) -> HfClip:
        values = _layout(directory).read_preprocessing(directory)
        return cls(
            clip,
            build_tokenizer(directory, cleans_texts=clip.config.model_type == "clip"),
            preprocessing=Preprocessing.from_config(values, rounds_crop=True),
            source=str(source),
            directory=directory,
            fingerprint=fingerprint,
        )

    def save_pretrained(self, directory: str | Path, *, dtype: torch.dtype | None = None) -> None:
        """Write the ordinary Hugging Face format: configuration, tokenizer and all.

        Args:
            directory: Made where it does not exist; each file is replaced whole or not at all.
            dtype: Type of the stored weights; None keeps theirs.

        Raises:
            EnvironmentProblem: The disk is full or cannot be written.
        """
        target = Path(directory)
        files.copy_side_files(self._directory, target)
        if files.is_open_clip(self._directory):
            read = open_clip.read_config, open_clip.read_preprocessing
            for name, each in zip((files.CONFIG, files.PREPROCESSING[0]), read, strict=True):
                values = json.dumps(each(self._directory), indent=2) + "\n"
                write_atomically(target / name, values.encode())
        weights = {name: value.to(dtype) for name, value in self.clip.state_dict().items()}
        files.write_safetensors(weights, target / files.WEIGHTS)

    # ---- facts ----------------------------------------------------------------------------

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that identify this CLIP's weights."""
        if self._trainable or not self._fingerprint:
            return files.fingerprint(self.clip.state_dict())
        return self._fingerprint

    @property
    def logit_scale(self) -> float:
        """The checkpoint's factor between cosine and logit (100 for OpenAI's)."""
        return self.clip.logit_scale.exp().item()

    @property
    def device(self) -> torch.device:
        """Where the weights are, and images and token ids are wanted."""
        return self.clip.logit_scale.device

    def set_logit_scale(self, logit_scale: float) -> None:
        """Set the factor that `save_pretrained` stores; it is trained elsewhere."""
        self.clip.logit_scale.data.fill_(logit_scale).log_()
        self._fingerprint = ""

    def as_published(self, *, normalisation: str, positions: str, activation: str) -> HfClip:
        """Return a CLIP of the same weights that runs as a published protocol's code runs it.

        Args:
            normalisation: As in `pacl.inference.image_path.ImagePath`.
            positions: Likewise.
            activation: Likewise. "gelu" concerns the vision tower alone.
        """
        preprocessing = self.preprocessing
        if normalisation == "imagenet":
            preprocessing = replace(
                preprocessing, mean=IMAGENET["image_mean"], std=IMAGENET["image_std"]
            )
        shared = {id(value): value for value in (*self.clip.parameters(), *self.clip.buffers())}
        clip = copy.deepcopy(self.clip, shared)
        if activation == "gelu":
            for module in clip.vision_model.modules():
                if isinstance(module, nn.LayerNorm):
                    module.eps = 1e-6
            for block in clip.vision_model.encoder.layers:
                block.mlp.activation_fn = nn.GELU()
        other = HfClip(
            clip,
            self.tokenizer,
            preprocessing=preprocessing,
            source=self.source,
            directory=self._directory,
            fingerprint=f"{self.fingerprint}-{activation}",
        )
        other._stretches_positions = positions == "tenth"
        return other

    # ---- what is trained ------------------------------------------------------------------

    def unfreeze(self, parts: Collection[str]) -> None:
        """Make towers trainable, with their projections; for the CLIP objective only.

        Args:
            parts: Any of "vision" and "text".
        """
        unknown = set(parts) - set(TRAINABLE_PARTS)
        if unknown:
            raise ValueError(f"parts may hold {list(TRAINABLE_PARTS)}, got {sorted(unknown)}")
        self._trainable = tuple(name for part in parts for name in TRAINABLE_PARTS[part])
        for name in self._trainable:
            self.clip.get_submodule(name).requires_grad_(True)

    def train(self, mode: bool = True) -> HfClip:
        """Set training mode on unfrozen towers only; the frozen ones stay in evaluation mode."""
        super().train(False)
        for name in self._trainable:
            self.clip.get_submodule(name).train(mode)
        return self

    # ---- images ---------------------------------------------------------------------------

    preprocess = PreparesImages.prepare  # its name until now

    def check_stride(self, stride_px: int) -> None:
        """Refuse a stride that leaves gaps between patches.

        Raises:
            InputError: It is not 1 to the patch size.
        """
        if not 1 <= stride_px <= self.patch_size_px:
            raise InputError(
                f"patch stride {stride_px} px leaves gaps between patches of "
                f"{self.patch_size_px} px",
                fix=f"use 1 to {self.patch_size_px}; the divisors of {self.patch_size_px} "
                "keep its grid",
            )

    def embed_images(
        self, images: Float[Tensor, "B 3 H W"], *, stride_px: int | None
    ) -> tuple[Float[Tensor, "B N E"], Grid]:
        """Return the input of the first block, CLS first, and the grid of the patches.

        Args:
            images: Normalised.
            stride_px: Distance of neighbouring patches; None: the patch size.
        """
        stride_px = self.patch_size_px if stride_px is None else stride_px
        return embed_images(
            self.clip.vision_model,
            images,
            stride_px=stride_px,
            stretches=self._stretches_positions,
        )

    def check_merging(self, kind: str) -> None:
        """Refuse kinds of tokens for which patches cannot be merged.

        Raises:
            InputError: It is one of those.
        """
        check_kind(kind)

    def patch_tower(
        self, *, kind: str, layer: int, norm: bool = True, merges: bool = False
    ) -> PatchTower:
        """Return the blocks up to a layer as one module, for whatever engine is to run them."""
        return PatchTower(self.clip.vision_model, kind=kind, layer=layer, norm=norm, merges=merges)

    def encode_patches(
        self,
        images: Float[Tensor, "B 3 H W"],
        *,
        kind: str = "clip",
        layer: int = -1,
        norm: bool = True,
        stride_px: int | None = None,
        merges: bool = False,
    ) -> tuple[Float[Tensor, "B T E"], Grid]:
        """Encode images to patch tokens, CLS dropped (paper: f̂_v).

        Args:
            images: Normalised; any height and width from one patch up.
            kind: How the last block that runs mixes patches, see `token_kinds.py`.
            layer: Whose output: -1 the last block's, -2 the one's before, ...
            norm: Whether the tower's final LayerNorm is applied.
            stride_px: Distance of neighbouring patches; None: the patch size.
            merges: Whether alike patches are merged on the way, see `merging.py`.

        Returns:
            Patch tokens, row-major, and the grid (rows, columns).

        Raises:
            ValueError: Unknown kind, no such layer, an image smaller than a patch, or a stride
                outside 1..patch size.
            InputError: Patches cannot be merged for that kind of tokens.
        """
        tower = self.patch_tower(kind=kind, layer=layer, norm=norm, merges=merges)
        tokens, grid = self.embed_images(images, stride_px=stride_px)
        if torch.is_inference_mode_enabled():
            with onednn_products():
                return tower(tokens, grid), grid
        return tower(tokens, grid), grid

    def project_patches(self, patch_tokens: Float[Tensor, "B T E"]) -> Float[Tensor, "B T D"]:
        """Project normed patch tokens to the joint space with CLIP's own projection."""
        return self.clip.visual_projection(patch_tokens)

    def encode_images(
        self,
        images: Float[Tensor, "B 3 H W"],
        *,
        keep_patches: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "B D"]:
        """Encode images as CLIP does: the CLS token, normed, projected, at unit length.

        Args:
            images: Normalised.
            keep_patches: Share of each image's patches that are kept, drawn at random (FLIP,
                arXiv 2212.00794); below 1 only in training from scratch.
            generator: Draws them.
        """
        vision = self.clip.vision_model
        cls = walk_to_cls(vision, images, keep_patches=keep_patches, generator=generator)
        return F.normalize(self.clip.visual_projection(cls), dim=-1)

    # ---- texts ----------------------------------------------------------------------------

    def encode_tokens(
        self, ids: Int[Tensor, "C L"], mask: Bool[Tensor, "C L"]
    ) -> Float[Tensor, "C D"]:
        """Encode token ids as CLIP does: the end token, normed, projected, at unit length.

        Args:
            ids: As `tokenize` returns them.
            mask: True for real tokens; the last of each row is the end token.
        """
        end = walk_to_end(self.clip.text_model, ids, mask)
        return F.normalize(self.clip.text_projection(end), dim=-1)


def _layout(directory: Path) -> ModuleType:
    """Return what reads a checkpoint: `open_clip`, or `files` for transformers' format."""
    return open_clip if files.is_open_clip(directory) else files


def _build_clip(directory: Path) -> Any:
    """Build the modules that a checkpoint's config.json describes, with random weights."""
    guard_against_torchvision()
    import transformers
    from huggingface_hub.errors import StrictDataclassError

    values = _layout(directory).read_config(directory)
    refuse_naflex(values.get("model_type"), directory)
    if values.get("model_type") not in CLIPS:
        raise InputError(
            f"{directory} is not a CLIP checkpoint",
            why=f"its config.json has model_type {values.get('model_type')!r}, wanted 'clip'",
            fix="give a CLIP with both towers, such as openai/clip-vit-base-patch16; a tower of "
            f"another kind is trained on first: pacl train --vision {directory} --text TEXT",
        )
    try:
        name = CLIPS[values["model_type"]]
        config = getattr(transformers, f"{name}Config").from_dict(values)
        return getattr(transformers, f"{name}Model")(config)
    except (StrictDataclassError, TypeError, ValueError) as error:
        raise InputError(
            f"{directory / files.CONFIG} does not describe a CLIP", why=str(error)
        ) from None
