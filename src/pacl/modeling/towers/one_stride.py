"""What towers share whose network runs as it is: one grid of tokens, and no training."""

from __future__ import annotations

from torch import nn

from pacl.errors import InputError
from pacl.modeling.towers.preprocess import PreparesImages


class OneStride(PreparesImages, nn.Module):
    """A frozen network without patches that could overlap.

    Attributes:
        patch_size_px: Distance of neighbouring tokens: its one stride.
        source: The hub id or directory as the user gave it.
    """

    patch_size_px: int
    source: str

    def train(self, mode: bool = True) -> OneStride:
        """Stay in evaluation mode: the tower is frozen, batch norms and dropout with it."""
        return super().train(False)

    def check_stride(self, stride_px: int | None) -> None:
        """Refuse any stride but the tower's own.

        Raises:
            InputError: It is another one.
        """
        if stride_px not in (None, self.patch_size_px):
            raise InputError(
                f"patch stride {stride_px} px: {self.source} has one token every "
                f"{self.patch_size_px} px",
                why="this network runs as it is, without patches that could overlap",
                fix="leave out the stride; larger images give finer masks: --short-side-px",
            )
