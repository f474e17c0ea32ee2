"""Convolutional towers: any vision model of transformers whose hidden states are maps.

A checkpoint in transformers' format, and beside it tower.json, which says what is read:
`{"layers": [15, 21], "stride_px": 16}`. `layers` are places in transformers' `hidden_states`
(default: the last alone); their maps are concatenated, those of a coarser grid enlarged to the
finest. With `stride_px`, no map gets coarser than that: what would have been a stride becomes a
dilation.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from pacl.errors import InputError
from pacl.modeling.towers import files
from pacl.modeling.towers.one_stride import OneStride
from pacl.modeling.towers.preprocess import Preprocessing
from pacl.modeling.towers.torchvision_guard import guard_against_torchvision

SETTINGS = "tower.json"
PROBE_PX = 256
"""Side of the blank image that shows how wide and how coarse the maps are."""


class ConvTower(OneStride):
    """The maps of a frozen convolutional network as patch tokens.

    Args:
        model: A vision model of transformers, without head.
        preprocessing: The checkpoint's resizing, crop, mean and deviation.
        source: The hub id or directory as the user gave it.
        layers: Places in `hidden_states` whose maps are concatenated.
        fingerprint: Identifies weights and settings.

    Attributes:
        image_size_px: Side of the square images that it is used with by default.
        patch_size_px: Distance of neighbouring tokens: its one stride.
        width: Channels of all maps together.
        n_layers: 1: `layers` decides what is read.
        token_kinds: "features" alone.

    Raises:
        InputError: A hidden state is not a map, or there is no such layer.
    """

    def __init__(
        self,
        model: Any,
        *,
        preprocessing: Preprocessing,
        source: str,
        layers: tuple[int, ...] = (-1,),
        fingerprint: str = "",
    ) -> None:
        super().__init__()
        self.model = model.requires_grad_(False).eval()
        self.model.to(memory_format=torch.channels_last)  # faster on a CPU
        self.preprocessing = preprocessing
        self.source = source
        self.layers = layers
        self.fingerprint = fingerprint
        self.n_layers = 1
        self.token_kinds = ("features",)
        size_px = preprocessing.crop_px or preprocessing.resize_px or PROBE_PX
        self.image_size_px: int = size_px if isinstance(size_px, int) else size_px[0]
        with torch.no_grad():
            maps = self._maps(torch.zeros(1, 3, PROBE_PX, PROBE_PX))
        self.width: int = sum(each.shape[1] for each in maps)
        self.patch_size_px: int = PROBE_PX // max(each.shape[2] for each in maps)

    @classmethod
    def from_pretrained(
        cls, source: str | Path, *, device: str | torch.device = "cpu"
    ) -> ConvTower:
        """Load a tower by hub id or from a local directory.

        Raises:
            InputError: No such checkpoint, weights that do not fit it, or impossible settings.
            EnvironmentProblem: The hub cannot be reached.
        """
        directory = files.find_checkpoint(source)
        path = directory / SETTINGS
        settings = files.read_json(path) if path.is_file() else {}
        layers, stride_px = tuple(settings.get("layers", (-1,))), settings.get("stride_px")
        model = _build_model(directory)
        if stride_px is not None:
            _dilate(model, stride_px, path)
        preprocessing = Preprocessing.from_config(files.read_preprocessing(directory))
        weights = files.fingerprint(model.state_dict())
        return cls(
            model,
            preprocessing=preprocessing,
            source=str(source),
            layers=layers,
            fingerprint=f"{weights}-{'.'.join(map(str, layers))}s{stride_px or 'own'}",
        ).to(device)

    @property
    def device(self) -> torch.device:
        """Where the weights are, and images are wanted."""
        return next(self.model.parameters()).device

    def encode_patches(
        self,
        images: Float[Tensor, "B 3 H W"],
        *,
        kind: str,
        layer: int = -1,
        norm: bool = True,
        stride_px: int | None = None,
    ) -> tuple[Float[Tensor, "B T E"], tuple[int, int]]:
        """Return each place of the maps as a token, see `VisionTower.encode_patches`.

        Raises:
            ValueError: Another kind or layer.
            InputError: Another stride than the tower's.
        """
        if kind not in self.token_kinds or layer != -1:
            raise ValueError(f"kind must be 'features' and layer -1, got {kind!r} and {layer}")
        self.check_stride(stride_px)
        maps = self._maps(images)
        grid = max((tuple(each.shape[2:]) for each in maps), key=lambda size: size[0] * size[1])
        tokens = torch.cat([_enlarge(each, grid) for each in maps], dim=1)
        return tokens.flatten(2).transpose(1, 2), (grid[0], grid[1])

    def _maps(self, images: Tensor) -> list[Float[Tensor, "B _ _ _"]]:
        images = images.to(memory_format=torch.channels_last)
        states = self.model(images, output_hidden_states=True).hidden_states
        try:
            maps = [states[layer] for layer in self.layers]
        except IndexError:
            raise InputError(
                f"layers {list(self.layers)}: {self.source} has {len(states)} hidden states",
                fix=f"give places from 0 to {len(states) - 1} in {SETTINGS}",
            ) from None
        if any(each.ndim != 4 for each in maps):
            raise InputError(
                f"{self.source} is no convolutional network",
                why=f"its hidden states have the shape {tuple(maps[0].shape)}, wanted a map",
                fix="give a CLIP, or a convolutional network in transformers' format",
            )
        return maps


def _enlarge(each: Tensor, grid: tuple[int, ...]) -> Tensor:
    if tuple(each.shape[2:]) == grid:
        return each
    return F.interpolate(each, size=grid, mode="bilinear", align_corners=False)


def _build_model(directory: Path) -> Any:
    """Load a checkpoint's body; its head, if it has one, is left out."""
    guard_against_torchvision()
    from transformers import AutoConfig, AutoModel

    weights = files.read_weights(directory)
    try:
        model = AutoModel.from_config(AutoConfig.from_pretrained(directory, local_files_only=True))
    except (ValueError, KeyError, OSError) as error:
        raise InputError(
            f"{directory} is no vision model that transformers knows", why=str(error)
        ) from None
    prefix = f"{model.base_model_prefix}."
    inner = {name.removeprefix(prefix): value for name, value in weights.items()}
    wanted = model.state_dict().keys()
    head = inner.keys() - wanted if wanted <= inner.keys() else set()
    files.fill_weights(model, {k: v for k, v in inner.items() if k not in head}, directory)
    return model


def _dilate(model: Any, stride_px: int, path: Path) -> None:
    """Replace strides beyond `stride_px` by dilations of all that follows."""
    from transformers.models.efficientnet.modeling_efficientnet import EfficientNetModel

    if not isinstance(model, EfficientNetModel):
        raise InputError(
            f"{path}: stride_px dilates an EfficientNet only, this is {type(model).__name__}",
            fix="leave out stride_px, and choose layers of the stride you want",
        )
    reached_px, dilation = 2, 1  # after the stem
    blocks: Any = model.encoder.blocks
    for block in blocks:
        depthwise, convolution = block.depthwise_conv, block.depthwise_conv.depthwise_conv
        convolution.dilation = (dilation, dilation)
        if depthwise.stride == 1:
            continue
        if 2 * reached_px <= stride_px:
            reached_px *= 2
            continue
        depthwise.stride, convolution.stride, convolution.padding = 1, (1, 1), "same"
        dilation *= 2
    if reached_px != stride_px:
        raise InputError(
            f"{path}: stride_px {stride_px} is impossible, this network has {reached_px}",
            fix="give 4, 8, 16 or 32",
        )
