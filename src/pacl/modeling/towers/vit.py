"""Vision transformers of any family that `families.py` describes, as frozen towers."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pacl.errors import InputError
from pacl.modeling.towers import files
from pacl.modeling.towers.families import FAMILIES, PAIRS, PLAIN_KIND, Family
from pacl.modeling.towers.merging import check_kind, run_merging, unmerge
from pacl.modeling.towers.positions import embed_patches, interpolate_positions
from pacl.modeling.towers.preprocess import PreparesImages, Preprocessing
from pacl.modeling.towers.pretrained import build_half, build_pretrained, read_config
from pacl.modeling.towers.token_kinds import TOKEN_KINDS, Grid
from pacl.modeling.towers.walk import onednn_products


class VitTower(PreparesImages, nn.Module):
    """A frozen vision transformer: our own patch embedding, the library's own blocks.

    Args:
        model: The vision model of transformers.
        family: What it states of itself.
        preprocessing: The checkpoint's resizing, crop, mean and deviation.
        source: The hub id or directory as the user gave it.
        fingerprint: Identifies the weights.

    Attributes:
        image_size_px: Side of the square images that its positions were trained for.
        patch_size_px: Side of a patch.
        width: E, width of its tokens.
        n_layers: Number of blocks.
        n_prefix: Tokens before the patches (CLS, registers), which are dropped.
        token_kinds: "features", the tower's own tokens, and others where they make sense.
    """

    def __init__(
        self,
        model: Any,
        *,
        family: Family,
        preprocessing: Preprocessing,
        source: str,
        fingerprint: str = "",
    ) -> None:
        super().__init__()
        self.model = model.requires_grad_(False).eval()
        self.family = family
        self.preprocessing = preprocessing
        self.source = source
        self.fingerprint = fingerprint
        self.token_kinds = family.token_kinds
        size_px = model.config.image_size
        self.image_size_px: int = size_px if isinstance(size_px, int) else size_px[0]
        self.width, _, self.patch_size_px, _ = family.kernel(model)[0].shape
        self.n_layers = len(family.blocks(model))
        self.n_prefix = len(family.prefix(model))

    @classmethod
    def from_pretrained(cls, source: str | Path, *, device: str | torch.device = "cpu") -> VitTower:
        """Load a tower by hub id or from a local directory.

        Raises:
            InputError: No such checkpoint, or weights that do not fit it.
            EnvironmentProblem: The hub cannot be reached.
        """
        directory = files.find_checkpoint(source)
        config, weights = read_config(directory), files.read_weights(directory)
        if config.model_type in PAIRS:
            model, _ = build_half("vision", directory, config=config, weights=weights)
            family = FAMILIES[model.config.model_type]
        else:
            family = FAMILIES[config.model_type]
            model = build_pretrained(
                family.architecture, directory, config=config, weights=weights, **family.options
            )
        return cls(
            model,
            family=family,
            preprocessing=Preprocessing.from_config(
                files.read_preprocessing(directory), family=family.processor
            ),
            source=str(source),
            fingerprint=files.fingerprint(weights),
        ).to(device)

    @property
    def device(self) -> torch.device:
        """Where the weights are, and images are wanted."""
        return next(self.model.parameters()).device

    def train(self, mode: bool = True) -> VitTower:
        """Stay in evaluation mode: DINOv3 rescales its rotations at random in training mode."""
        return super().train(False)

    def check_stride(self, stride_px: int) -> None:
        """Refuse a stride that leaves gaps, or that the tower's rotations do not follow.

        Raises:
            InputError: It is not 1 to the patch size; or not the patch size, under rotations.
        """
        if self.family.positions is None and stride_px != self.patch_size_px:
            raise InputError(
                f"patch stride {stride_px} px: {self.source} rotates its tokens for patches every "
                f"{self.patch_size_px} px",
                why="a finer grid would turn the wrong tokens",
                fix="--grid shifted; or no stride, and larger images: --short-side-px",
            )
        if not 1 <= stride_px <= self.patch_size_px:
            raise InputError(
                f"patch stride {stride_px} px leaves gaps between patches of "
                f"{self.patch_size_px} px",
                fix=f"use 1 to {self.patch_size_px}",
            )

    def check_merging(self, kind: str) -> None:
        """Refuse to merge patches where the kind of tokens, or the tower, asks for their places.

        Raises:
            InputError: It does.
        """
        check_kind(kind)
        if self.family.rotations is not None:
            raise InputError(
                f"{self.source} rotates each token by its place, so patches cannot be merged",
                fix="--grid shifted",
            )

    # ---- images ---------------------------------------------------------------------------

    def encode_patches(
        self,
        images: Float[Tensor, "B 3 H W"],
        *,
        kind: str = PLAIN_KIND,
        layer: int = -1,
        norm: bool = True,
        stride_px: int | None = None,
        merges: bool = False,
    ) -> tuple[Float[Tensor, "B T E"], Grid]:
        """Encode images to patch tokens, the prefix dropped, see `VisionTower.encode_patches`.

        With `merges`, alike patches are merged on the way, see `merging.py`.

        Raises:
            ValueError: Unknown kind, no such layer, or an image smaller than a patch.
            InputError: A stride that the tower cannot do, or patches that it cannot merge.
        """
        if kind not in self.token_kinds:
            raise ValueError(f"kind must be one of {', '.join(self.token_kinds)}, got {kind!r}")
        if not -self.n_layers <= layer <= -1:
            raise ValueError(f"layer must lie in -{self.n_layers}..-1, got {layer}")
        if merges:
            self.check_merging(kind)
        fast = onednn_products() if torch.is_inference_mode_enabled() else nullcontext()
        with fast:
            return self._walk(images, kind, layer, norm, stride_px or self.patch_size_px, merges)

    def _walk(
        self, images: Tensor, kind: str, layer: int, norm: bool, stride_px: int, merges: bool
    ) -> tuple[Float[Tensor, "B T E"], Grid]:
        family, model, places = self.family, self.model, None
        rotations = family.rotations(model, images) if family.rotations else {}
        tokens, grid = self._embed(images, stride_px)
        blocks = family.blocks(model)[: self.n_layers + 1 + layer]
        *earlier, last = (partial(block, attention_mask=None, **rotations) for block in blocks)
        if merges:
            tokens, places = run_merging(earlier, tokens, n_prefix=self.n_prefix)
        else:
            for block in earlier:
                tokens = block(tokens)
        if kind == PLAIN_KIND:
            tokens = last(tokens)
        else:
            tokens = TOKEN_KINDS[kind](family.parts(blocks[-1]), tokens, grid)
        patches: Tensor = tokens[:, self.n_prefix :]
        patches = family.norm(model)(patches) if norm else patches
        return patches if places is None else unmerge(patches, places), grid

    def _embed(self, images: Tensor, stride_px: int) -> tuple[Float[Tensor, "B N E"], Grid]:
        """Return the input of the first block, and the grid of the patches."""
        self.check_stride(stride_px)
        family, model = self.family, self.model
        if family.condition is not None:
            images = family.condition(model, images)
        kernel, bias = family.kernel(model)
        patches, grid = embed_patches(images.to(kernel.dtype), kernel, bias, stride_px=stride_px)
        if family.positions is not None:
            patches = patches + interpolate_positions(
                family.positions(model),
                grid,
                patch_px=self.patch_size_px,
                stride_px=stride_px,
                table_filter=family.table_filter,
            )
        prefix = family.prefix(model).to(patches.dtype)
        return torch.cat([prefix.expand(images.shape[0], -1, -1), patches], dim=1), grid
