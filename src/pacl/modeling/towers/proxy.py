"""ProxyCLIP (Lan et al., 2408.04883): another tower's patches decide which of CLIP's values mix.

With x_i the unit patch tokens of the other tower, v the values of LN1 of CLIP's last block,
upsampled bilinearly to that tower's grid, W_o the block's output projection, and β = 1.2, γ = 3:

    A_ij = γ (x_i · x_j - β mean(x · x));   negative A_ij are -∞
    y = W_o softmax(A) v

There is no residual and no feed-forward. A patch is never masked from itself: where an image is so
even that all A are negative, as the published code divides 0 by 0, each patch keeps its own value.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from pacl.modeling.towers.hf import HfClip
from pacl.modeling.towers.preprocess import PreparesImages
from pacl.modeling.towers.protocols import VisionTower
from pacl.modeling.towers.token_kinds import Grid, apply_block
from pacl.modeling.towers.tokens import EncodesTexts

PROXY_KIND = "proxyclip"
SHIFT, SCALE = 1.2, 3.0
"""β and γ, the paper's for every data set."""


class ProxyClip(PreparesImages, EncodesTexts, nn.Module):
    """A frozen CLIP whose last block attends as the patches of a second frozen tower are alike.

    Args:
        clip: The CLIP, of which everything else is.
        proxy: The second tower; its default tokens are compared.

    Attributes:
        clip: As given.
        proxy: As given.
        patch_size_px: Side of the proxy's patches, on whose grid tokens are returned.
        source: The CLIP's.
    """

    def __init__(self, clip: HfClip, proxy: VisionTower) -> None:
        super().__init__()
        self.clip, self.proxy = clip, proxy
        self.preprocessing = clip.preprocessing
        self.source = clip.source
        self.token_kinds = (PROXY_KIND,)
        self.image_size_px = clip.image_size_px
        self.patch_size_px = proxy.patch_size_px
        self.width, self.n_layers = clip.width, clip.n_layers
        self.joint_width, self.text_width = clip.joint_width, clip.text_width
        self.context_length = clip.context_length
        shown, seen = clip.preprocessing, proxy.preprocessing
        colours = zip(shown.mean, shown.std, seen.mean, seen.std, strict=True)
        factors = [(std / own_std, (mean - own_mean) / own_std)
                   for mean, std, own_mean, own_std in colours]  # fmt: skip
        self._recolour = torch.tensor(factors).T[..., None, None]

    @property
    def fingerprint(self) -> str:
        """Identifies the weights of both towers."""
        return f"{self.clip.fingerprint}~{self.proxy.fingerprint}"

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.clip.device

    @property
    def logit_scale(self) -> float:
        """The CLIP's factor between cosine and logit."""
        return self.clip.logit_scale

    def as_published(self, *, normalisation: str, positions: str, activation: str) -> ProxyClip:
        """Return the same two towers, the CLIP as `HfClip.as_published` returns it."""
        clip = self.clip.as_published(
            normalisation=normalisation, positions=positions, activation=activation
        )
        return ProxyClip(clip, self.proxy)

    # ---- images ---------------------------------------------------------------------------

    def check_stride(self, stride_px: int) -> None:
        """Raise InputError where the proxy's patches cannot lie this far apart."""
        self.proxy.check_stride(stride_px)

    def encode_patches(
        self,
        images: Float[Tensor, "B 3 H W"],
        *,
        kind: str = PROXY_KIND,
        layer: int = -1,
        norm: bool = True,
        stride_px: int | None = None,
    ) -> tuple[Float[Tensor, "B T E"], Grid]:
        """Encode images to CLIP's patch tokens on the proxy's grid.

        Args:
            images: Normalised for the CLIP; for the proxy, colours are normalised anew.
            kind: "proxyclip".
            layer: Which of CLIP's blocks is the last.
            norm: Whether CLIP's final LayerNorm is applied.
            stride_px: Distance of the proxy's patches; None: its patch size.

        Raises:
            ValueError: Another kind, no such layer, or an image smaller than a patch.
            InputError: A stride that the proxy cannot do.
        """
        if kind != PROXY_KIND:
            raise ValueError(f"kind must be {PROXY_KIND}, got {kind!r}")
        factor, offset = self._recolour.to(images)
        features, grid = self.proxy.encode_patches(
            images * factor + offset, kind=self.proxy.token_kinds[0], stride_px=stride_px
        )
        tower = self.clip.patch_tower(kind="maskclip", layer=layer, norm=norm)
        tokens, own_grid = self.clip.embed_images(self._whole_patches(images), stride_px=None)
        *earlier, last = tower.blocks
        for block in earlier:
            tokens = apply_block(block, tokens)
        values = last.self_attn.v_proj(last.layer_norm1(tokens[:, 1:]))
        values = F.interpolate(
            values.mT.unflatten(2, own_grid), grid, mode="bilinear", align_corners=False
        )
        mixed = proxy_attention(features).to(values.dtype) @ values.flatten(2).mT
        return tower.norm(last.self_attn.out_proj(mixed)), grid

    def _whole_patches(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 _ _"]:
        """Resize images to the nearest size of whole patches of CLIP's, where they have another."""
        side = self.clip.patch_size_px
        size_px = [max(1, round(n / side)) * side for n in images.shape[2:]]
        if size_px == list(images.shape[2:]):
            return images
        return F.interpolate(images, size_px, mode="bilinear", align_corners=False)

    def project_patches(self, patch_tokens: Float[Tensor, "B T E"]) -> Float[Tensor, "B T D"]:
        """Project normed patch tokens with CLIP's own projection."""
        return self.clip.project_patches(patch_tokens)

    def encode_images(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
        """Encode images to unit embeddings, as CLIP alone does."""
        return self.clip.encode_images(images)

    # ---- texts ----------------------------------------------------------------------------

    def tokenize(self, texts: Sequence[str]) -> tuple[Int[Tensor, "C L"], Bool[Tensor, "C L"], int]:
        """Turn texts into token ids, the mask of real tokens, and the number of texts cut."""
        return self.clip.tokenize(texts)

    def tokenizer_json(self) -> str:
        """Return CLIP's tokenizer, see `HfClip.tokenizer_json`."""
        return self.clip.tokenizer_json()

    def encode_tokens(
        self, ids: Int[Tensor, "C L"], mask: Bool[Tensor, "C L"]
    ) -> Float[Tensor, "C D"]:
        """Encode what `tokenize` returned to unit embeddings."""
        return self.clip.encode_tokens(ids, mask)


def proxy_attention(features: Float[Tensor, "B T F"]) -> Float[Tensor, "B T T"]:
    """Attention weights from the cosines of patches, normalised, those below 0 masked.

    Args:
        features: Patch tokens of any length. The mean is over all pairs of an image.
    """
    unit = F.normalize(features, dim=-1)
    cosines = unit @ unit.mT
    affinity = SCALE * (cosines - SHIFT * cosines.mean(dim=(1, 2), keepdim=True))
    is_itself = torch.eye(features.shape[1], dtype=torch.bool, device=features.device)
    return affinity.masked_fill((affinity < 0) & ~is_itself, -torch.inf).softmax(dim=2)
