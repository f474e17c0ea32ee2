"""CLIPs of open_clip whose image tower is timm's (EVA, MobileCLIP, PE): two towers, no whole CLIP.

timm's network runs as it is; the text transformer is read as transformers' (`open_clip.py`). Such a
CLIP has no walk of our own through its blocks: no stride trick and no kinds of tokens but its own.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

from math import isqrt
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from pacl.errors import EnvironmentProblem, InputError
from pacl.modeling.towers import files, open_clip
from pacl.modeling.towers.clip_tokens import TokenizesAsClip, build_tokenizer
from pacl.modeling.towers.one_stride import OneStride
from pacl.modeling.towers.preprocess import Preprocessing
from pacl.modeling.towers.pretrained import build_pretrained
from pacl.modeling.towers.torchvision_guard import guard_against_torchvision
from pacl.modeling.towers.walk import walk_to_end

TRUNK = "visual.trunk."
"""Begins the names of timm's weights in open_clip's file."""

HEADS = ("head.", "fc.", "classifier.", "fc_norm.")
"""Parts of a timm model that come after its patch tokens."""

ANY_TEXT = ("no_causal_mask",)
"""What a text tower may ask for here beyond a plain CLIP's."""


class TimmTower(OneStride):
    """The patch tokens, or the last map, of a network of timm. Frozen.

    Args:
        trunk: A model of timm.
        preprocessing: The checkpoint's resizing, crop, mean and deviation.
        image_size_px: Side of the images that it was trained on.
        source: The hub id or directory as the user gave it.
        fingerprint: Identifies the weights.

    Attributes:
        patch_size_px: Distance of neighbouring tokens: its one stride.
        width: Width of its tokens.
        n_layers: 1: its last tokens are read, with the final norm where it has one.
        token_kinds: "features" alone.
    """

    def __init__(
        self,
        trunk: Any,
        *,
        preprocessing: Preprocessing,
        image_size_px: int,
        source: str,
        fingerprint: str = "",
    ) -> None:
        super().__init__()
        self.trunk = trunk.requires_grad_(False).eval()
        self.preprocessing = preprocessing
        self.image_size_px = image_size_px
        self.source = source
        self.fingerprint = fingerprint
        self.n_layers = 1
        self.token_kinds = ("features",)
        with torch.no_grad():
            found = trunk.forward_features(torch.zeros(1, 3, image_size_px, image_size_px))
        self._is_map = found.ndim == 4
        self._n_prefix: int = 0 if self._is_map else trunk.num_prefix_tokens
        side = found.shape[2] if self._is_map else isqrt(found.shape[1] - self._n_prefix)
        self.patch_size_px: int = image_size_px // side
        self.width: int = found.shape[1] if self._is_map else found.shape[2]

    @classmethod
    def from_pretrained(cls, directory: Path, *, device: str | torch.device = "cpu") -> TimmTower:
        """Load a tower from a local directory in open_clip's format.

        Raises:
            InputError: Files are missing or damaged, or timm has no such model.
            EnvironmentProblem: There is no timm, or no torchvision for it.
        """
        vision = open_clip.VISION | open_clip.read_model(directory)["vision_cfg"]
        weights = {
            name.removeprefix(TRUNK): value
            for name, value in open_clip.read_stored(directory).items()
            if name.startswith(TRUNK)
        }
        trunk = _build_trunk(vision["timm_model_name"], vision.get("timm_pool", "avg"))
        wanted = trunk.state_dict().keys()
        heads = {name for name in weights.keys() - wanted if name.startswith(HEADS)}
        weights = {name: value for name, value in weights.items() if name not in heads}
        files.fill_weights(trunk, weights, directory)
        return cls(
            trunk,
            preprocessing=Preprocessing.from_config(
                open_clip.read_preprocessing(directory), rounds_crop=True
            ),
            image_size_px=vision["image_size"],
            source=str(directory),
            fingerprint=files.fingerprint(weights),
        ).to(device)

    @property
    def device(self) -> torch.device:
        """Where the weights are, and images are wanted."""
        return next(self.trunk.parameters()).device

    def encode_patches(
        self,
        images: Float[Tensor, "B 3 H W"],
        *,
        kind: str,
        layer: int = -1,
        norm: bool = True,
        stride_px: int | None = None,
    ) -> tuple[Float[Tensor, "B T E"], tuple[int, int]]:
        """Encode images to patch tokens, see `VisionTower.encode_patches`.

        Raises:
            ValueError: Another kind or layer, or without the norm.
            InputError: Another stride than the tower's.
        """
        if kind not in self.token_kinds or layer != -1 or not norm:
            raise ValueError(f"kind must be 'features', layer -1, with the norm: {kind!r}, {layer}")
        self.check_stride(stride_px)
        patch_px = self.patch_size_px
        rows, columns = images.shape[-2] // patch_px, images.shape[-1] // patch_px
        found = self.trunk.forward_features(images[..., : rows * patch_px, : columns * patch_px])
        tokens = found.flatten(2).transpose(1, 2) if self._is_map else found[:, self._n_prefix :]
        return tokens, (rows, columns)


class OpenClipText(TokenizesAsClip, nn.Module):
    """The text transformer of a CLIP of open_clip, without its image tower. Frozen.

    Args:
        model: A transformers `CLIPTextModelWithProjection`.
        tokenizer: The checkpoint's own.
        is_causal: Whether a token attends to earlier ones only; if not, to padding too.
        logit_scale: The checkpoint's factor between cosine and logit.
        source: The hub id or directory as the user gave it.
        fingerprint: Identifies the weights.

    Attributes:
        text_width: D, width of the embeddings.
        context_length: Most tokens of a text.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        is_causal: bool,
        logit_scale: float,
        source: str,
        fingerprint: str = "",
    ) -> None:
        super().__init__()
        self.model = model.requires_grad_(False).eval()
        self.tokenizer = tokenizer
        self.is_causal = is_causal
        self.pads_to_length = not is_causal
        self.cleans_texts = True
        self.logit_scale = logit_scale
        self.source = source
        self.fingerprint = fingerprint if is_causal else f"{fingerprint}-unmasked"
        self.text_width: int = model.config.projection_dim
        self.context_length: int = model.config.max_position_embeddings

    @classmethod
    def from_pretrained(
        cls, directory: Path, *, device: str | torch.device = "cpu"
    ) -> OpenClipText:
        """Load a tower from a local directory in open_clip's format.

        Raises:
            InputError: Files are missing or damaged, or it is no CLIP's text transformer.
        """
        from transformers import CLIPTextConfig

        settings = open_clip.read_model(directory)["text_cfg"]
        values = open_clip.read_text_config(directory, but=ANY_TEXT)
        read = open_clip.read_weights(directory)
        weights = {name: value for name, value in read.items() if name.startswith("text_")}
        model = build_pretrained(
            "CLIPTextModelWithProjection",
            directory,
            config=CLIPTextConfig(**values),
            weights=weights,
        )
        return cls(
            model,
            build_tokenizer(directory, cleans_texts=True),
            is_causal=not settings.get("no_causal_mask", False),
            logit_scale=read["logit_scale"].exp().item(),
            source=str(directory),
            fingerprint=files.fingerprint(weights),
        ).to(device)

    @property
    def device(self) -> torch.device:
        """Where the weights are, and token ids are wanted."""
        return next(self.model.parameters()).device

    def train(self, mode: bool = True) -> OpenClipText:
        """Stay in evaluation mode: the tower is frozen."""
        return super().train(False)

    def encode_tokens(
        self, ids: Int[Tensor, "C L"], mask: Bool[Tensor, "C L"]
    ) -> Float[Tensor, "C D"]:
        """Encode what `tokenize` returned: the end token, normed, projected, at unit length."""
        end = walk_to_end(self.model.text_model, ids, mask, is_causal=self.is_causal)
        return F.normalize(self.model.text_projection(end), dim=-1)


def _build_trunk(name: str, pool: str) -> Any:
    """Build a network of timm with random weights, for any size of image, without a classifier."""
    guard_against_torchvision()
    try:
        import timm  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise EnvironmentProblem(
            "image towers of open_clip that are timm's need timm and torchvision",
            why=str(error),
            fix="pip install --no-deps timm torchvision pyyaml  (with --no-deps the torch that is "
            "here stays; a torchvision for another torch will do)",
        ) from None
    if name not in timm.list_models():
        raise InputError(f"timm {timm.__version__} has no model {name}", fix="install a newer timm")
    settings: dict[str, Any] = {"pretrained": False, "num_classes": 0, "global_pool": pool}
    try:
        return timm.create_model(name, dynamic_img_size=True, **settings)
    except TypeError:  # a convolutional network: it takes any size without being asked
        return timm.create_model(name, **settings)
