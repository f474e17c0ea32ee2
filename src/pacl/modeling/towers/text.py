"""Transformer text towers other than CLIP's: SigLIP, TIPSv2, and sentence encoders.

The library's own forward pass runs; nothing of a text needs a walk block by block. How its tokens
become one embedding is stated by the family, or by a sentence encoder's own pooling file.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from pacl.errors import InputError
from pacl.modeling.towers import files
from pacl.modeling.towers.families import PAIRS
from pacl.modeling.towers.pretrained import build_half, build_pretrained, read_config
from pacl.modeling.towers.static_text import FIRST_LOGIT_SCALE
from pacl.modeling.towers.tokens import EncodesTexts

MODULES = "modules.json"
POOLING = "1_Pooling/config.json"
SENTENCE_LENGTH = "sentence_bert_config.json"

Pooling = Literal["own", "mean", "cls"]
"""The model's own `pooler_output`, the mean of the real tokens, or the first token."""


@dataclass(frozen=True)
class TextFamily:
    """What a text encoder states of itself."""

    architecture: str
    """Its class in transformers."""

    pooling: Pooling
    """How its tokens become one embedding."""

    pads_to_length: bool = False
    """Whether every text has the full length, and padding is attended to (SigLIP)."""

    is_lower_case: bool = False
    """Whether it was trained on lower-case texts, whatever its tokenizer's file says."""

    logit_scale: Callable[[Any], float] = lambda whole: FIRST_LOGIT_SCALE
    """Factor between cosine and logit of the model with both towers."""


TEXT_FAMILIES = {
    "siglip_text_model": TextFamily(
        "SiglipTextModel",
        "own",
        pads_to_length=True,
        is_lower_case=True,
        logit_scale=lambda whole: whole.logit_scale.exp().item(),
    ),
    "tipsv2_text_model": TextFamily(
        "Tipsv2TextModel",
        "own",
        is_lower_case=True,
        logit_scale=lambda whole: 1 / whole.temperature.item(),
    ),
}
"""The families by `model_type` of config.json, or of its text_config."""


class TransformerText(EncodesTexts, nn.Module):
    """A text encoder of transformers with its tokenizer. Frozen.

    Args:
        model: The encoder.
        tokenizer: The checkpoint's own.
        family: What the encoder states.
        context_length: Most tokens of a text.
        logit_scale: Where training starts.
        source: The hub id or directory as the user gave it.
        fingerprint: Identifies the weights.

    Attributes:
        text_width: D, width of the embeddings.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        family: TextFamily,
        context_length: int,
        logit_scale: float,
        source: str,
        fingerprint: str,
    ) -> None:
        super().__init__()
        self.model = model.requires_grad_(False).eval()
        self.tokenizer = tokenizer
        self.family = family
        self.context_length = context_length
        self.logit_scale = logit_scale
        self.source = source
        self.fingerprint = f"{fingerprint}-{family.pooling}{context_length}"
        self.text_width: int = getattr(model.config, "projection_size", model.config.hidden_size)

    @classmethod
    def from_pretrained(
        cls, directory: Path, *, device: str | torch.device = "cpu"
    ) -> TransformerText:
        """Load a tower from a local directory.

        Raises:
            InputError: Files are missing or damaged, or a pooling that is not known.
        """
        config, weights = read_config(directory), files.read_weights(directory)
        logit_scale = FIRST_LOGIT_SCALE
        if config.model_type in PAIRS:
            model, whole = build_half("text", directory, config=config, weights=weights)
            family = TEXT_FAMILIES[model.config.model_type]
            logit_scale = family.logit_scale(whole)
            context_length: int = model.config.max_position_embeddings
        elif (directory / MODULES).is_file():
            family, context_length = _read_sentence_encoder(directory, config)
            model = build_pretrained(family.architecture, directory, config=config, weights=weights)
        else:
            family = TEXT_FAMILIES[config.model_type]
            context_length = config.max_position_embeddings
            model = build_pretrained(family.architecture, directory, config=config, weights=weights)
        return cls(
            model,
            _read_tokenizer(directory),
            family=family,
            context_length=context_length,
            logit_scale=logit_scale,
            source=str(directory),
            fingerprint=files.fingerprint(weights),
        ).to(device)

    @property
    def device(self) -> torch.device:
        """Where the weights are, and token ids are wanted."""
        return next(self.model.parameters()).device

    def train(self, mode: bool = True) -> TransformerText:
        """Stay in evaluation mode: the tower is frozen, and dropout would blur its texts."""
        return super().train(False)

    def tokenize(self, texts: Sequence[str]) -> tuple[Int[Tensor, "C L"], Bool[Tensor, "C L"], int]:
        """Turn texts into token ids, the mask of tokens that count, and the number of texts cut."""
        if self.family.is_lower_case:
            texts = [text.lower() for text in texts]
        n_cut = sum(
            len(row) > self.context_length
            for row in self.tokenizer(list(texts), verbose=False).input_ids
        )
        found = self.tokenizer(
            list(texts),
            padding="max_length" if self.family.pads_to_length else "longest",
            truncation=True,
            max_length=self.context_length,
            return_attention_mask=True,
            return_tensors="pt",
        )
        ids, mask = found.input_ids, found.attention_mask.bool()
        if self.family.pads_to_length:
            mask = torch.ones_like(mask)
        return ids, mask, n_cut

    def tokenizer_json(self) -> str:
        """Return the tokenizer as the tokenizers library stores it, cutting and padding too.

        Where padding is attended to, its mask differs from that of `tokenize`; nothing reads it.
        """
        from tokenizers import Tokenizer
        from tokenizers.normalizers import Lowercase
        from tokenizers.normalizers import Sequence as Normalizers

        tokenizer = Tokenizer.from_str(self.tokenizer.backend_tokenizer.to_str())
        if self.family.is_lower_case:
            own = tokenizer.normalizer
            tokenizer.normalizer = Normalizers([Lowercase(), *([own] if own else [])])
        tokenizer.enable_truncation(self.context_length)
        tokenizer.enable_padding(
            pad_id=self.tokenizer.pad_token_id or 0,
            direction=self.tokenizer.padding_side,
            length=self.context_length if self.family.pads_to_length else None,
        )
        return tokenizer.to_str()

    def encode_tokens(
        self, ids: Int[Tensor, "C L"], mask: Bool[Tensor, "C L"]
    ) -> Float[Tensor, "C D"]:
        """Encode what `tokenize` returned to unit embeddings."""
        if self.family.pads_to_length:
            return F.normalize(self.model(input_ids=ids).pooler_output, dim=-1)
        output = self.model(input_ids=ids, attention_mask=mask.long())
        if self.family.pooling == "own":
            pooled = output.pooler_output
        elif self.family.pooling == "cls":
            pooled = output.last_hidden_state[:, 0]
        else:
            real = mask.unsqueeze(-1).to(output.last_hidden_state.dtype)
            pooled = (output.last_hidden_state * real).sum(dim=1) / real.sum(dim=1)
        return F.normalize(pooled, dim=-1)


def _read_sentence_encoder(directory: Path, config: Any) -> tuple[TextFamily, int]:
    """Return the pooling and the length that a sentence-transformers checkpoint states."""
    import transformers

    modules = str((directory / MODULES).read_text(encoding="utf-8"))
    if "models.Dense" in modules or "modules.Dense" in modules:
        raise InputError(
            f"{directory} has a Dense module after its pooling, which pacl does not run",
            why=f"{MODULES} lists it",
            fix="give a sentence encoder of transformer and pooling alone",
        )
    pooling = files.read_json(directory / POOLING)
    modes = {name for name, value in pooling.items() if value is True and "pooling_mode" in name}
    known: dict[str, Pooling] = {
        "pooling_mode_mean_tokens": "mean",
        "pooling_mode_cls_token": "cls",
    }
    if len(modes) != 1 or not modes <= known.keys():
        raise InputError(
            f"{directory / POOLING} asks for a pooling that is not known here",
            why=f"{', '.join(sorted(modes)) or 'none'}; known: {', '.join(known)}",
        )
    length = config.max_position_embeddings
    if (directory / SENTENCE_LENGTH).is_file():
        length = files.read_json(directory / SENTENCE_LENGTH).get("max_seq_length") or length
    mapping: Any = transformers.MODEL_MAPPING
    architecture = mapping[type(config)].__name__
    return TextFamily(architecture, known[modes.pop()]), int(length)


def _read_tokenizer(directory: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(directory, local_files_only=True)
    except (ImportError, OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"the tokenizer in {directory} cannot be read",
            why=f"{error}\n{files.found_files(directory)}",
            fix="give a checkpoint with its tokenizer.json",
        ) from None
