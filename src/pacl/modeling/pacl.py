"""PACL as a whole: a frozen CLIP, the trained embedder on its patch tokens, a logit scale."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pacl.errors import InputError
from pacl.modeling.embedder import VisionEmbedder
from pacl.modeling.engines import DEFAULT_ENGINE, DenseEngine, build_engine
from pacl.modeling.names import CONFIG, find_source, newest_checkpoint
from pacl.modeling.towers import FrozenClip, files
from pacl.modeling.towers.hf import HfClip
from pacl.runtime.files import write_atomically

WEIGHTS = "embedder.safetensors"
FORMAT = "pacl"
VERSION = 1
BASELINE_KIND = "maskclip"


class Pacl(nn.Module):
    """A frozen CLIP and the embedder that aligns its patches with texts.

    Args:
        encoder: The frozen CLIP.
        embedder: The trained part; None: CLIP's own projection, a training-free baseline.
        patch_temperature: τ_p of the patch weights (the paper has none: 1).
        token_kind: How the encoder's last used block mixes patches, see
            `pacl.modeling.towers.token_kinds`.
        token_layer: Which block's tokens are embedded, -1 the last.
        logit_scale: Factor between compatibility and logit; None: the encoder's own.
        training: How the embedder was trained, as it is to be kept in the checkpoint.
    """

    def __init__(
        self,
        *,
        encoder: FrozenClip,
        embedder: VisionEmbedder | None,
        patch_temperature: float = 1.0,
        token_kind: str = "clip",
        token_layer: int = -1,
        logit_scale: float | None = None,
        training: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.embedder = embedder
        self.patch_temperature = patch_temperature
        self.token_kind = token_kind
        self.token_layer = token_layer
        self.logit_scale = encoder.logit_scale if logit_scale is None else logit_scale
        self.training_facts = training or {}
        self._engine: DenseEngine | None = None

    @property
    def has_embedder(self) -> bool:
        """Whether there is a trained embedder; without one this is a training-free baseline."""
        return self.embedder is not None

    @property
    def fingerprint(self) -> str:
        """Identifies everything that decides a score: weights, tokens, temperature and scale.

        The hashes of towers and embedder come first (`weights_fingerprint`), the settings after
        them in words, so that two fingerprints can be compared by eye.
        """
        return (
            f"{self.weights_fingerprint} {self.token_kind}{self.token_layer} "
            f"temperature {self.patch_temperature:.6g} scale {self.logit_scale:.6g}"
        )

    @property
    def weights_fingerprint(self) -> str:
        """Identifies the weights alone: both towers', and the embedder's where there is one.

        Results that were written before there was a `fingerprint` carry this one.
        """
        if self.embedder is None:
            return self.encoder.fingerprint
        return f"{self.encoder.fingerprint}+{files.stored_fingerprint(self.embedder.state_dict())}"

    @property
    def device(self) -> torch.device:
        """Where images are wanted."""
        return self.encoder.device

    def patch_embeds(
        self, images: Float[Tensor, "B 3 H W"], *, stride_px: int | None = None
    ) -> Float[Tensor, "B rows columns D"]:
        """Embed every patch of normalised images in the joint space (paper: ê_v(f̂_v(x))).

        Args:
            images: Normalised; any height and width from one patch up.
            stride_px: Distance of neighbouring patches; None: the patch size.

        Returns:
            Raw patch embeddings, not of unit length: the compatibility needs their norms.
        """
        tokens, grid = self.encode_patches(images, stride_px=stride_px)
        return self.embed_tokens(tokens).unflatten(1, grid)

    def encode_patches(
        self, images: Float[Tensor, "B 3 H W"], *, stride_px: int | None = None
    ) -> tuple[Float[Tensor, "B T E"], tuple[int, int]]:
        """Encode normalised images to patch tokens of this model's kind and layer, not embedded.

        Args:
            images: As for `patch_embeds`.
            stride_px: As for `patch_embeds`.

        Returns:
            Patch tokens, row-major, and the grid (rows, columns).
        """
        encoder = self.encoder if self._engine is None else self._engine
        return encoder.encode_patches(
            images, kind=self.token_kind, layer=self.token_layer, stride_px=stride_px
        )

    def use_engine(self, name: str) -> None:
        """Let an engine run the frozen encoder from now on: for inference, without gradients.

        Args:
            name: A key of `pacl.modeling.engines.ENGINES`, or "auto".

        Raises:
            InputError: No such engine, or none for this device.
            EnvironmentProblem: Its packages are not installed.
        """
        self._engine = build_engine(name, self.encoder)

    def embed_tokens(self, patch_tokens: Float[Tensor, "B T E"]) -> Float[Tensor, "B T D"]:
        """Embed patch tokens of this model's kind and layer, for instance from a cache."""
        if self.embedder is None:
            return self.encoder.project_patches(patch_tokens)
        return self.embedder(patch_tokens.to(self.embedder.skip.weight.dtype))

    def describe(self) -> str:
        """Say in one plain sentence what this model is."""
        tokens = f"{self.token_kind} tokens of layer {self.token_layer}"
        if self._engine is not None and self._engine.name != DEFAULT_ENGINE:
            tokens += f", engine {self._engine.name}"
        if self.has_embedder:
            return f"PACL: a trained embedder on {self.encoder.source} ({tokens})."
        return (
            f"No trained embedder: training-free baseline on {self.encoder.source} ({tokens}, "
            "CLIP's own projection)."
        )

    def save_pretrained(self, directory: str | Path) -> None:
        """Write the embedder and what it belongs to; the encoder is named, never copied.

        Args:
            directory: Made where it does not exist; each file is replaced whole or not at all.

        Raises:
            ValueError: There is no embedder to save.
            EnvironmentProblem: The disk is full or cannot be written.
        """
        if self.embedder is None:
            raise ValueError("a training-free baseline has nothing to save: embedder is None")
        target = Path(directory)
        config = {
            "format": FORMAT,
            "version": VERSION,
            "encoder": self.encoder.source,
            "encoder_fingerprint": self.encoder.fingerprint,
            "token_kind": self.token_kind,
            "token_layer": self.token_layer,
            "patch_temperature": self.patch_temperature,
            "width": self.embedder.width,
            "joint_width": self.embedder.joint_width,
            "hidden": self.embedder.hidden,
            "logit_scale": self.logit_scale,
            "training": self.training_facts,
        }
        files.write_safetensors(self.embedder.state_dict(), target / WEIGHTS)
        write_atomically(target / CONFIG, (json.dumps(config, indent=2) + "\n").encode())

    @classmethod
    def from_pretrained(
        cls,
        directory: str | Path,
        *,
        encoder: FrozenClip | None = None,
        device: str | torch.device = "cpu",
    ) -> Pacl:
        """Read what `save_pretrained` wrote.

        Args:
            directory: Holds config.json and embedder.safetensors.
            encoder: The CLIP it belongs to, where it is at hand; None: loaded by the name in
                config.json.
            device: For the encoder that is loaded, and the embedder.

        Raises:
            InputError: No PACL checkpoint, one of another CLIP, or damaged.
        """
        source = Path(directory)
        config = _read_config(source)
        if encoder is None:
            encoder = HfClip.from_pretrained(find_source(config["encoder"]), device=device)
            encoder.source = config["encoder"]
        _check_encoder(config, encoder, source)
        embedder = VisionEmbedder(config["width"], config["joint_width"], hidden=config["hidden"])
        weights = files.read_safetensors(source / WEIGHTS)
        files.fill_weights(embedder, weights, source)
        return cls(
            encoder=encoder,
            embedder=embedder.to(encoder.device),
            patch_temperature=config["patch_temperature"],
            token_kind=config["token_kind"],
            token_layer=config["token_layer"],
            logit_scale=config["logit_scale"],
            training=config["training"],
        ).eval()


def load(
    source: str | Path,
    *,
    device: str | torch.device | None = None,
    embedder: str | Path | None = None,
) -> Pacl:
    """Load whatever a user may name as a model.

    Args:
        source: "storybook" (comes with pacl); a CLIP, by hub id or directory, whose subfolder
            pacl/ is used where it holds an embedder; or the output directory of a training run.
        device: None: the GPU where there is one.
        embedder: Directory of a PACL checkpoint to put on the CLIP that `source` names.

    Returns:
        The model, in evaluation mode. A CLIP without any embedder becomes the training-free
        MaskCLIP baseline, and `describe` says so.

    Raises:
        InputError: Nothing of that name, or the embedder belongs to another CLIP.
        EnvironmentProblem: The hub cannot be reached.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    found = find_source(source)
    if _is_pacl(found):
        if embedder is not None:
            raise InputError(f"{source} has its own embedder", fix="name its CLIP, or no embedder")
        return Pacl.from_pretrained(found, device=device)
    encoder = HfClip.from_pretrained(found, device=device)
    encoder.source = str(source)
    beside = Path(found) / "pacl"
    if embedder is None and _is_pacl(beside):
        embedder = beside
    if embedder is not None:
        return Pacl.from_pretrained(newest_checkpoint(Path(embedder)), encoder=encoder)
    return Pacl(encoder=encoder, embedder=None, token_kind=BASELINE_KIND).eval()


def _is_pacl(source: str | Path) -> bool:
    path = Path(source) / CONFIG
    return path.is_file() and files.read_json(path).get("format") == FORMAT


def _read_config(directory: Path) -> dict[str, Any]:
    config = files.read_json(directory / CONFIG)
    if config.get("format") != FORMAT:
        raise InputError(
            f"{directory} is not a PACL checkpoint",
            why=f"its {CONFIG} has format {config.get('format')!r}, wanted {FORMAT!r}",
        )
    if config.get("version") != VERSION:
        raise InputError(
            f"{directory} was written by another version of pacl",
            why=f"checkpoint version {config.get('version')!r}, this pacl reads {VERSION}",
        )
    return config


def _check_encoder(config: dict[str, Any], encoder: FrozenClip, directory: Path) -> None:
    widths = config["width"], config["joint_width"]
    if (encoder.width, encoder.joint_width) != widths:
        raise InputError(
            f"the embedder in {directory} does not fit {encoder.source}",
            why=f"it maps {widths[0]} to {widths[1]}, "
            f"the CLIP has {encoder.width} and {encoder.joint_width}",
            fix=f"use it with {config['encoder']}",
        )
    if encoder.fingerprint != config["encoder_fingerprint"]:
        raise InputError(
            f"the embedder in {directory} was trained on another CLIP than {encoder.source}",
            why=f"fingerprint of the weights: {config['encoder_fingerprint']} in the checkpoint, "
            f"{encoder.fingerprint} here",
            fix=f"use it with {config['encoder']}, or train a new embedder",
        )
