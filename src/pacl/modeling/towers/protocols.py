"""The two seams of the model: what any frozen vision tower and any frozen text tower state.

The rest of pacl asks for what these protocols state and for nothing else. One file serves each
library or format; a CLIP (`hf.HfClip`) is both towers, and the only pair with a joint space of its
own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from pacl.modeling.towers.preprocess import Preprocessing

Size = tuple[int, int]
"""(height, width) in pixels."""


class Tower(Protocol):
    """What both kinds of tower state."""

    @property
    def source(self) -> str:
        """The hub id or directory it was loaded from, as the user gave it."""
        ...

    @property
    def fingerprint(self) -> str:
        """Identifies its weights, and its settings where it has any."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the weights are, and where images or token ids are wanted."""
        ...


class VisionTower(Tower, Protocol):
    """A frozen network from images to patch tokens."""

    @property
    def image_size_px(self) -> int:
        """Side of the square images that it was trained on."""
        ...

    @property
    def patch_size_px(self) -> int:
        """Side of a patch: the largest stride."""
        ...

    @property
    def width(self) -> int:
        """Width E of the patch tokens."""
        ...

    @property
    def n_layers(self) -> int:
        """Number of layers whose tokens can be asked for."""
        ...

    @property
    def token_kinds(self) -> tuple[str, ...]:
        """The values that `kind` may have, the default first."""
        ...

    @property
    def preprocessing(self) -> Preprocessing:
        """The checkpoint's resizing, crop and normalisation."""
        ...

    def check_stride(self, stride_px: int) -> None:
        """Raise InputError where patches cannot lie this far apart."""
        ...

    def resize(
        self, image: Image.Image | np.ndarray, *, size_px: Size | None = None
    ) -> UInt8[Tensor, "3 H W"]:
        """Resize an image by the tower's rule and filter, without normalising it.

        Args:
            image: PIL, or (H, W, 3) uint8.
            size_px: Resize to exactly this; None: the checkpoint's own resizing and centre crop.
        """
        ...

    def normalise(self, images: Tensor) -> Float[Tensor, "*B 3 H W"]:
        """Normalise uint8 images that already have the wanted size."""
        ...

    def prepare(
        self, image: Image.Image | np.ndarray, *, size_px: Size | None = None
    ) -> Float[Tensor, "3 H W"]:
        """Turn an image into a normalised tensor: `resize`, then `normalise`."""
        ...

    def encode_patches(
        self,
        images: Float[Tensor, "B 3 H W"],
        *,
        kind: str,
        layer: int = -1,
        norm: bool = True,
        stride_px: int | None = None,
    ) -> tuple[Float[Tensor, "B T E"], tuple[int, int]]:
        """Encode images to patch tokens (paper: f̂_v). Several threads may call it at a time.

        Args:
            images: Normalised; any height and width from one patch up.
            kind: One of `token_kinds`.
            layer: Whose output: -1 the last layer's, -2 the one's before, ...
            norm: Whether the tower's final norm is applied, where it has one.
            stride_px: Distance of neighbouring patches; None: the patch size.

        Returns:
            Patch tokens, row-major, and the grid (rows, columns).
        """
        ...


@runtime_checkable
class MergesPatches(Protocol):
    """A vision tower that can merge alike patches, see `pacl.modeling.towers.merging`."""

    def check_merging(self, kind: str) -> None:
        """Raise InputError where patches cannot be merged for that kind of tokens."""
        ...

    def encode_patches(
        self,
        images: Float[Tensor, "B 3 H W"],
        *,
        kind: str,
        layer: int,
        stride_px: int | None,
        merges: bool,
    ) -> tuple[Float[Tensor, "B T E"], tuple[int, int]]:
        """Encode images as `VisionTower.encode_patches`; `merges` says whether patches merge."""
        ...


class TextTower(Tower, Protocol):
    """A frozen network from texts to unit embeddings."""

    @property
    def text_width(self) -> int:
        """Width of the embeddings."""
        ...

    @property
    def context_length(self) -> int:
        """Most tokens of a text; a longer one is cut."""
        ...

    @property
    def logit_scale(self) -> float:
        """Factor between cosine and logit: where training starts."""
        ...

    def tokenize(self, texts: Sequence[str]) -> tuple[Int[Tensor, "C L"], Bool[Tensor, "C L"], int]:
        """Turn texts into token ids, the mask of real tokens, and the number of texts cut."""
        ...

    def tokenizer_json(self) -> str:
        """Return the tokenizer as the tokenizers library stores it, cutting and padding too.

        For use without pacl: its `encode_batch` gives the ids and masks of `tokenize`.
        """
        ...

    def encode_tokens(
        self, ids: Int[Tensor, "C L"], mask: Bool[Tensor, "C L"]
    ) -> Float[Tensor, "C D"]:
        """Encode what `tokenize` returned to unit embeddings."""
        ...

    def encode_texts(self, texts: Sequence[str]) -> Float[Tensor, "C D"]:
        """Encode texts, at least one, to unit embeddings."""
        ...


class FrozenClip(VisionTower, TextTower, Protocol):
    """A CLIP: both towers, and the joint space that they were trained for."""

    @property
    def joint_width(self) -> int:
        """Width D of the joint space."""
        ...

    def project_patches(self, patch_tokens: Float[Tensor, "B T E"]) -> Float[Tensor, "B T D"]:
        """Project normed patch tokens with CLIP's own projection."""
        ...

    def encode_images(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
        """Encode images to unit embeddings."""
        ...
