"""PACL as a whole: two frozen towers, the trained embedder between them, a logit scale."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from pacl.errors import InputError
from pacl.modeling import card as cards
from pacl.modeling import checkpoint, hub
from pacl.modeling.embedder import VisionEmbedder
from pacl.modeling.names import DEFAULT_ENGINE
from pacl.modeling.pooling import Pooling, pooled_compatibility
from pacl.modeling.towers import FrozenClip, MergesPatches, TextTower, VisionTower, files
from pacl.modeling.towers.hf import HfClip
from pacl.modeling.towers.load import load_pair, load_text_tower, load_vision_tower
from pacl.modeling.towers.proxy import ProxyClip
from pacl.modeling.towers.vit import VitTower
from pacl.text.labels import Labels, fill_templates

if TYPE_CHECKING:
    from pacl.modeling.engines import DenseEngine

BASELINE_KIND = "maskclip"
"""Tokens of a model without a trained embedder."""


class Pacl(nn.Module):
    """Two frozen towers and the embedder that aligns patches with texts.

    Args:
        encoder: A CLIP, which is both towers; or else give `vision` and `text`.
        vision: The tower that encodes patches.
        text: The tower that encodes texts.
        embedder: The trained part on the patches' side (the paper's). None, and no `text_embedder`:
            CLIP's own projection, a training-free baseline.
        text_embedder: The trained part on the texts' side. Without `embedder`, texts are mapped to
            the space of the patch tokens, which stay as they are.
        patch_temperature: `τ_p` of the patch weights (the paper has none: 1).
        token_kind: How the vision tower's last used block mixes patches, see
            `pacl.modeling.towers.token_kinds`.
        token_layer: Which block's tokens are embedded, -1 the last.
        logit_scale: Factor between compatibility and logit; None: the text tower's own.
        training: How the embedder was trained, for the checkpoint.
        pooling: How patches are pooled for a text, see `pacl.modeling.pooling`.
        null_similarity: Cosine of the null token of that pooling; None: there is none.

    Attributes:
        words: Nouns of the captions that it was trained on, the most frequent first; may be empty.
    """

    def __init__(
        self,
        *,
        encoder: FrozenClip | None = None,
        vision: VisionTower | None = None,
        text: TextTower | None = None,
        embedder: VisionEmbedder | None,
        text_embedder: VisionEmbedder | None = None,
        patch_temperature: float = 1.0,
        token_kind: str = "clip",
        token_layer: int = -1,
        logit_scale: float | None = None,
        training: dict[str, Any] | None = None,
        pooling: Pooling = "pacl",
        null_similarity: float | None = None,
    ) -> None:
        super().__init__()
        vision, text = vision or encoder, text or encoder
        if vision is None or text is None:
            raise ValueError("give encoder, or both vision and text")
        self.vision: VisionTower = vision
        self.text: TextTower = text
        self.is_clip = vision is text
        self.embedder = embedder
        self.text_embedder = text_embedder
        self.patch_temperature = patch_temperature
        self.token_kind = token_kind
        self.token_layer = token_layer
        self.logit_scale = text.logit_scale if logit_scale is None else logit_scale
        self.training_facts = training or {}
        self.pooling: Pooling = pooling
        self.null_similarity = null_similarity
        self.words: tuple[str, ...] = ()
        self._engine: DenseEngine | None = None

    # ---- facts ----------------------------------------------------------------------------

    @property
    def encoder(self) -> FrozenClip:
        """The CLIP that is both towers.

        Raises:
            InputError: The towers are not a CLIP.
        """
        if not self.is_clip:
            vision = self.vision
            apart = vision.family.apart if isinstance(vision, VitTower) else ""
            raise InputError(
                f"{vision.source} and {self.text.source} have no joint space of their own",
                why="only a CLIP scores an image, or its patches, without a trained embedder"
                + (f"\n{vision.source}: {apart}" if apart else ""),
                fix="use the trained embedder: leave out --baseline, or --score clip and fusion",
            )
        return cast(FrozenClip, self.vision)

    @property
    def shares_space(self) -> bool:
        """Whether the towers are halves of one model whose patch tokens lie in its texts' space."""
        return (
            isinstance(self.vision, VitTower)
            and not self.vision.family.apart
            and self.text.fingerprint.startswith(self.vision.fingerprint)
        )

    @property
    def has_embedder(self) -> bool:
        """Whether there is a trained embedder; without one this is a training-free baseline."""
        return self.embedder is not None or self.text_embedder is not None

    @property
    def head(self) -> Literal["vision", "text", "both"]:
        """The side that is trained."""
        if self.text_embedder is None:
            return "vision"
        return "text" if self.embedder is None else "both"

    @property
    def fingerprint(self) -> str:
        """Identifies everything that decides a score: weights, tokens, temperature and scale.

        The hashes of towers and embedder come first (`weights_fingerprint`), the settings after
        them in words, so that two fingerprints can be compared by eye.
        """
        return (
            f"{self.weights_fingerprint} {self.token_kind}{self.token_layer} "
            f"temperature {self.patch_temperature:.6g} scale {self.logit_scale:.6g}"
            + "".join(f" {name} {value}" for name, value in self._uncommon_settings().items())
        )

    def _uncommon_settings(self) -> dict[str, Any]:
        """Settings of an objective other than the paper's; none for PACL's own."""
        settings: dict[str, Any] = {} if self.pooling == "pacl" else {"pooling": self.pooling}
        if self.null_similarity is not None:
            settings["null_similarity"] = self.null_similarity
        return settings

    @property
    def weights_fingerprint(self) -> str:
        """Identifies the weights alone: both towers', and the embedder's where there is one.

        Results that were written before there was a `fingerprint` carry this one.
        """
        towers = self.vision.fingerprint
        if not self.is_clip:
            towers += "/" + self.text.fingerprint
        for mark, embedder in (("+", self.embedder), ("+texts:", self.text_embedder)):
            if embedder is not None:
                towers += mark + files.stored_fingerprint(embedder.state_dict())
        return towers

    @property
    def device(self) -> torch.device:
        """Device for images."""
        return self.vision.device

    def describe(self) -> str:
        """Say in one plain sentence what this model is."""
        tokens = f"{self.token_kind} tokens of layer {self.token_layer}"
        if self._engine is not None:
            tokens += f", engine {self._engine.name}"
        towers = self.vision.source
        if not self.is_clip:
            towers += f" and {self.text.source}"
        if isinstance(self.vision, ProxyClip):
            towers += f" with {self.vision.proxy.source} as proxy"
        if self.has_embedder:
            side = {"vision": "", "text": " for texts", "both": " for patches and for texts"}
            return f"PACL: a trained embedder{side[self.head]} on {towers} ({tokens})."
        space = "CLIP's own projection" if self.is_clip else "in its texts' space as they are"
        return f"No trained embedder: training-free baseline on {towers} ({tokens}, {space})."

    # ---- images ---------------------------------------------------------------------------

    def patch_embeds(
        self, images: Float[Tensor, "B 3 H W"], *, stride_px: int | None = None
    ) -> Float[Tensor, "B rows columns D"]:
        """Embed every patch of normalised images in the joint space (paper: ê_v(f̂_v(x))).

        Args:
            images: Normalised; height and width of at least one patch.
            stride_px: Distance of neighbouring patches; None: the patch size.

        Returns:
            Raw patch embeddings, not normalised: the compatibility needs their norms.
        """
        tokens, grid = self.encode_patches(images, stride_px=stride_px)
        return torch.unflatten(self.embed_tokens(tokens), 1, grid)

    def encode_patches(
        self,
        images: Float[Tensor, "B 3 H W"],
        *,
        stride_px: int | None = None,
        merges: bool = False,
    ) -> tuple[Float[Tensor, "B T E"], tuple[int, int]]:
        """Encode normalised images to patch tokens of this model's kind and layer, not embedded.

        Args:
            images: As for `patch_embeds`.
            stride_px: As for `patch_embeds`.
            merges: Whether alike patches are merged on the way, see
                `pacl.modeling.towers.merging`; `check_merging` says whether they can be.

        Returns:
            Patch tokens, row-major, and the grid (rows, columns).
        """
        tower = self.vision if self._engine is None else self._engine
        options: dict[str, Any] = {"kind": self.token_kind, "layer": self.token_layer}
        options |= {"merges": True} if merges else {}
        return tower.encode_patches(images, stride_px=stride_px, **options)

    def check_merging(self) -> None:
        """Refuse where the vision tower cannot merge patches on the way to this model's tokens.

        Raises:
            InputError: It cannot.
        """
        if not isinstance(self.vision, MergesPatches):
            raise InputError(
                f"patches of {self.vision.source} cannot be merged",
                why="only the tokens that a transformer's own blocks make can be",
                fix="--grid shifted, or whole",
            )
        self.vision.check_merging(self.token_kind)

    def use_engine(self, name: str) -> None:
        """Run the vision tower with an engine from now on, for inference without gradients.

        Args:
            name: A key of `pacl.modeling.engines.ENGINES`, or "auto". "torch" is the tower
                itself.

        Raises:
            InputError: There is no such engine, or it does not run this tower or device.
            EnvironmentProblem: Its packages are not installed.
        """
        if name == DEFAULT_ENGINE:
            self._engine = None
            return
        from pacl.modeling.engines import build_engine

        engine = build_engine(name, self.vision, kind=self.token_kind, layer=self.token_layer)
        self._engine = None if engine.name == DEFAULT_ENGINE else engine

    @property
    def runs_as_published(self) -> bool:
        """Whether `as_published` changes anything: the vision tower is a CLIP's."""
        return isinstance(self.vision, HfClip | ProxyClip)

    def as_published(self, *, normalisation: str, positions: str, activation: str) -> Pacl:
        """Return this model with a CLIP's vision tower run as a published protocol's code runs it.

        Args:
            normalisation: As in `pacl.inference.image_path.ImagePath`.
            positions: Likewise.
            activation: Likewise.

        Another tower stays as it is: what it has of these is its own.
        """
        if not isinstance(self.vision, HfClip | ProxyClip):
            return self
        vision = self.vision.as_published(
            normalisation=normalisation, positions=positions, activation=activation
        )
        other = copy.copy(self)
        other._modules = dict(self._modules)
        other.vision = vision
        other.text = vision if self.is_clip else self.text
        if self._engine is not None:
            other.use_engine(self._engine.name)
        return other

    def embed_tokens(self, patch_tokens: Float[Tensor, "B T E"]) -> Float[Tensor, "B T D"]:
        """Embed patch tokens of this model's kind and layer, for instance from a cache."""
        if self.embedder is None:
            if self.text_embedder is not None or self.shares_space:
                return patch_tokens.float()
            return self.encoder.project_patches(patch_tokens)
        return self.embedder(patch_tokens.to(self.embedder.skip.weight.dtype))

    def compatibility(
        self,
        patch_embeds: Float[Tensor, "I T D"],
        text_embeds: Float[Tensor, "C D"],
        *,
        null_similarity: float | Tensor | None = None,
        own_texts: Int[Tensor, " I"] | None = None,
    ) -> Float[Tensor, "I C"]:
        """Score every image with every text, by the pooling that the embedder is trained with.

        Args:
            patch_embeds: Raw patch embeddings, row-major.
            text_embeds: One text per row, not necessarily normalised.
            null_similarity: The null token's cosine while it is learned; None: the model's own.
            own_texts: Index of each image's own text, for training with own-caption pooling. None:
                it is unknown, and that pooling pools for every text in turn, as pacl does.

        Returns:
            Scores in [-1, 1], before the logit scale.
        """
        is_own = self.pooling == "own-caption"
        return pooled_compatibility(
            patch_embeds,
            text_embeds,
            pooling="pacl" if is_own and own_texts is None else self.pooling,
            patch_temperature=self.patch_temperature,
            null_similarity=self.null_similarity if null_similarity is None else null_similarity,
            own_texts=own_texts if is_own else None,
        )

    # ---- texts ----------------------------------------------------------------------------

    def embed_texts(self, text_embeds: Float[Tensor, "C _"]) -> Float[Tensor, "C D"]:
        """Map the text tower's embeddings to the joint space, at unit length."""
        if self.text_embedder is None:
            return text_embeds
        weight_type = self.text_embedder.skip.weight.dtype
        return F.normalize(self.text_embedder(text_embeds.to(weight_type)).float(), dim=-1)

    def encode_classes(
        self, labels: Labels, templates: Sequence[str]
    ) -> tuple[Float[Tensor, "N D"], Int[Tensor, "N"]]:
        """Encode each name of each class in all templates: normalise, average, normalise.

        Words for the background stand for one more class, after the last.

        Args:
            labels: Classes, each with one or more names.
            templates: Such as "a photo of a {}."; see `pacl.text.templates`.

        Returns:
            One unit embedding per name, and the index of the class that each name stands for.
        """
        groups = (*labels.prompts, labels.background)
        names = [name for prompts in groups for name in prompts]
        class_of_name = [c for c, prompts in enumerate(groups) for _ in prompts]
        texts = [text for name in names for text in fill_templates(name, templates)]
        embeds = self.embed_texts(self.text.encode_texts(texts))
        embeds = torch.unflatten(embeds, 0, (len(names), -1)).mean(dim=1)
        return F.normalize(embeds, dim=-1), torch.tensor(class_of_name, device=embeds.device)

    # ---- checkpoints ----------------------------------------------------------------------

    def save_pretrained(self, directory: str | Path) -> None:
        """Write the embedders and the names of their towers, whose weights are not copied.

        Args:
            directory: Created if it does not exist; files are replaced atomically.

        Raises:
            ValueError: There is no embedder to save.
            EnvironmentProblem: The disk is full or cannot be written.
        """
        if not self.has_embedder:
            raise ValueError("a training-free baseline has nothing to save: embedder is None")
        settings = {
            "token_kind": self.token_kind,
            "token_layer": self.token_layer,
            "patch_temperature": self.patch_temperature,
        }
        scale = {"logit_scale": self.logit_scale, "training": self.training_facts}
        scale |= self._uncommon_settings()
        of_patches = checkpoint.describe_embedder(self.embedder)
        if self.is_clip and self.head == "vision":
            named = {"encoder": self.vision.source, "encoder_fingerprint": self.vision.fingerprint}
            facts = named | settings | (of_patches or {}) | scale
            checkpoint.write(directory, 1, facts, self.words, embedder=self.embedder)
            return
        named = {
            "vision": self.vision.source,
            "vision_fingerprint": self.vision.fingerprint,
            "text": self.text.source,
            "text_fingerprint": self.text.fingerprint,
            "embedder": of_patches,
            "text_embedder": checkpoint.describe_embedder(self.text_embedder),
        }
        both = {"embedder": self.embedder, "text_embedder": self.text_embedder}
        checkpoint.write(directory, 2, named | settings | scale, self.words, **both)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        card: cards.Card,
        towers: Mapping[str, str] | None = None,
        private: bool | None = None,
        revision: str | None = None,
    ) -> str:
        """Upload the embedders and a model card to the Hugging Face hub; the towers are only named.

        Args:
            repo_id: "owner/name"; made where it does not exist.
            card: What readers must know: licence, data, scores.
            towers: Hub ids of towers that were loaded from a directory, by "encoder", "vision" or
                "text".
            private: Whether only the owner sees a new repository.
            revision: The branch to commit to; None: the main one.

        Returns:
            The address of the commit.

        Raises:
            ValueError: There is no embedder to upload.
            InputError: A tower is named by a path of this machine, or the hub refuses.
            EnvironmentProblem: The hub cannot be reached.
        """
        with TemporaryDirectory() as name:
            directory = Path(name)
            self.save_pretrained(directory)
            config = hub.make_shareable(directory, towers or {})
            text = cards.write_card(
                config, card, repo_id, "A trained embedder on a frozen encoder."
            )
            (directory / cards.HUB_CARD).write_text(text, encoding="utf-8")
            return hub.push(directory, repo_id, private=private, revision=revision)

    @classmethod
    def from_pretrained(
        cls,
        directory: str | Path,
        *,
        encoder: FrozenClip | None = None,
        vision: VisionTower | None = None,
        text: TextTower | None = None,
        device: str | torch.device = "cpu",
    ) -> Pacl:
        """Load a checkpoint that `save_pretrained` or `push_to_hub` wrote.

        Args:
            directory: Holds config.json and the embedders' weights; or a model's id on the hub.
            encoder: Its CLIP, if it is loaded already.
            vision: Its vision tower, if it is loaded already.
            text: Its text tower, if it is loaded already. A tower that is not given is loaded
                by its name in config.json.
            device: For the towers that are loaded, and the embedders.

        Raises:
            InputError: It is not a PACL checkpoint, belongs to other towers, or is damaged.
            EnvironmentProblem: The hub cannot be reached.
        """
        directory = hub.find_checkpoint(directory)
        config = checkpoint.read_config(directory)
        vision, text = vision or encoder, text or encoder
        if vision is None and text is None:
            vision, text = load_pair(config["vision"], config["text"], device=device)
        vision = vision or load_vision_tower(config["vision"], device=device)
        text = text or load_text_tower(config["text"], device=device)
        checkpoint.check_towers(config, vision, text, directory)
        of_patches = checkpoint.read_embedder(config["embedder"], directory, checkpoint.WEIGHTS)
        of_texts = checkpoint.read_embedder(
            config["text_embedder"], directory, checkpoint.TEXT_WEIGHTS
        )
        pacl = cls(
            vision=vision,
            text=text,
            embedder=of_patches and of_patches.to(vision.device),
            text_embedder=of_texts and of_texts.to(vision.device),
            patch_temperature=config["patch_temperature"],
            token_kind=config["token_kind"],
            token_layer=config["token_layer"],
            logit_scale=config["logit_scale"],
            training=config["training"],
            pooling=config.get("pooling", "pacl"),
            null_similarity=config.get("null_similarity"),
        ).eval()
        pacl.words = checkpoint.read_words(directory)
        return pacl
