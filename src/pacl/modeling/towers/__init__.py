"""Frozen CLIP encoders: one small protocol, and one file for each library that can serve it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from pacl.text.labels import Labels


class FrozenClip(Protocol):
    """What the rest of pacl asks of a CLIP; `hf.HfClip` documents each member."""

    @property
    def source(self) -> str:
        """The hub id or directory it was loaded from."""
        ...

    @property
    def fingerprint(self) -> str:
        """Tells its weights from any other CLIP's."""
        ...

    @property
    def image_size_px(self) -> int:
        """Side of its training images."""
        ...

    @property
    def patch_size_px(self) -> int:
        """Side of a patch."""
        ...

    @property
    def width(self) -> int:
        """Width E of its patch tokens."""
        ...

    @property
    def joint_width(self) -> int:
        """Width D of the joint space."""
        ...

    @property
    def n_layers(self) -> int:
        """Blocks of the vision tower."""
        ...

    @property
    def context_length(self) -> int:
        """Most tokens of a text."""
        ...

    @property
    def logit_scale(self) -> float:
        """Factor between cosine and logit."""
        ...

    @property
    def device(self) -> torch.device:
        """Where images and token ids are wanted."""
        ...

    def preprocess(
        self, image: Image.Image | np.ndarray, *, size_px: tuple[int, int] | None = None
    ) -> Float[Tensor, "3 H W"]:
        """Turn a picture into a normalised tensor."""
        ...

    def normalise(self, images: Tensor) -> Float[Tensor, "B 3 H W"]:
        """Normalise uint8 images of the right size."""
        ...

    def encode_patches(
        self,
        images: Float[Tensor, "B 3 H W"],
        *,
        kind: str = "clip",
        layer: int = -1,
        norm: bool = True,
        stride_px: int | None = None,
    ) -> tuple[Float[Tensor, "B T E"], tuple[int, int]]:
        """Encode images to patch tokens and their grid."""
        ...

    def project_patches(self, patch_tokens: Float[Tensor, "B T E"]) -> Float[Tensor, "B T D"]:
        """Project normed patch tokens with CLIP's own projection."""
        ...

    def encode_images(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
        """Encode images to unit embeddings."""
        ...

    def tokenize(self, texts: Sequence[str]) -> tuple[Int[Tensor, "C L"], Bool[Tensor, "C L"], int]:
        """Turn texts into ids, mask, number of texts cut."""
        ...

    def encode_tokens(
        self, ids: Int[Tensor, "C L"], mask: Bool[Tensor, "C L"]
    ) -> Float[Tensor, "C D"]:
        """Encode token ids to unit embeddings."""
        ...

    def encode_texts(self, texts: Sequence[str]) -> Float[Tensor, "C D"]:
        """Encode texts to unit embeddings."""
        ...

    def encode_classes(
        self, labels: Labels, templates: Sequence[str]
    ) -> tuple[Float[Tensor, "N D"], Int[Tensor, "N"]]:
        """Encode class names in templates; gives the class of each name too."""
        ...
