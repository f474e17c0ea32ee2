"""The vision embedder ê_v, the only part that PACL trains (paper, appendix A.1)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class VisionEmbedder(nn.Module):
    """A residual block from patch tokens to the joint space: Linear-ReLU-Linear plus a Linear.

    Args:
        width: E, width of the frozen encoder's tokens.
        joint_width: D, width of the joint space.
        hidden: Width inside the main branch; None: joint_width. 768 -> 512 -> 512 has 1,050,112
            parameters, the paper's "about 1.1 M".

    The paper names neither LayerNorm nor dropout, and there is none.
    """

    def __init__(self, width: int, joint_width: int, *, hidden: int | None = None) -> None:
        super().__init__()
        self.width = width
        self.joint_width = joint_width
        self.hidden = hidden or joint_width
        self.main_in = nn.Linear(width, self.hidden)
        self.main_out = nn.Linear(self.hidden, joint_width)
        self.skip = nn.Linear(width, joint_width)

    def forward(self, patch_tokens: Float[Tensor, "*B E"]) -> Float[Tensor, "*B D"]:
        """Embed patch tokens; the patch embeddings are raw, not of unit length."""
        device = patch_tokens.device.type
        if torch.is_autocast_enabled(device):
            # Once, where autocast would do it twice; and by float32, where torch's own way from
            # half to bfloat16 takes five times as long on a CPU. The numbers are the same.
            patch_tokens = patch_tokens.float().to(torch.get_autocast_dtype(device))
        return self.main_out(F.relu(self.main_in(patch_tokens))) + self.skip(patch_tokens)

    @torch.no_grad()
    def init_random(self, *, generator: torch.Generator | None = None) -> None:
        """Draw all weights as `nn.Linear` does, uniform in ±1/√fan_in."""
        for layer in (self.main_in, self.main_out, self.skip):
            bound = layer.in_features**-0.5
            nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
            nn.init.uniform_(layer.bias, -bound, bound, generator=generator)

    @torch.no_grad()
    def init_clip(
        self, visual_projection: Float[Tensor, "D E"], *, generator: torch.Generator | None = None
    ) -> None:
        """Start as CLIP's own projection: it becomes the skip branch, the main branch adds 0.

        Args:
            visual_projection: Weight of CLIP's bias-free projection, made for tokens after the
                final LayerNorm.
            generator: Draws the first main layer.

        Only the last main layer is zero, so that its gradient is not and the branch wakes up.
        """
        self.init_random(generator=generator)
        self.main_out.weight.zero_()
        self.main_out.bias.zero_()
        self.skip.weight.copy_(visual_projection)
        self.skip.bias.zero_()
