"""Oxford Flowers-102 test (Nilsback and Zisserman 2008).

The files number the classes only; the names are those of the set's web page, in the order of the
numbers.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pacl.datasets.classification.dataset import (
    ClassificationBenchmark,
    ClassificationData,
    Split,
    plain_labels,
    split_of,
)
from pacl.datasets.classification.matlab import load_mat, numbers
from pacl.datasets.segmentation.dataset import find_base, names
from pacl.errors import InputError

CLASSES = names("""
    pink primrose, hard-leaved pocket orchid, canterbury bells, sweet pea, english marigold,
    tiger lily, moon orchid, bird of paradise, monkshood, globe thistle, snapdragon, colt's foot,
    king protea, spear thistle, yellow iris, globe flower, purple coneflower, peruvian lily,
    balloon flower, giant white arum lily, fire lily, pincushion flower, fritillary, red ginger,
    grape hyacinth, corn poppy, prince of wales feathers, stemless gentian, artichoke,
    sweet william, carnation, garden phlox, love in the mist, mexican aster, alpine sea holly,
    ruby-lipped cattleya, cape flower, great masterwort, siam tulip, lenten rose, barbeton daisy,
    daffodil, sword lily, poinsettia, bolero deep blue, wallflower, marigold, buttercup,
    oxeye daisy, common dandelion, petunia, wild pansy, primula, sunflower, pelargonium,
    bishop of llandaff, gaura, geranium, orange dahlia, pink and yellow dahlia, cautleya spicata,
    japanese anemone, black-eyed susan, silverbush, californian poppy, osteospermum, spring crocus,
    bearded iris, windflower, tree poppy, gazania, azalea, water lily, rose, thorn apple,
    morning glory, passion flower, lotus, toad lily, anthurium, frangipani, clematis, hibiscus,
    columbine, desert-rose, tree mallow, magnolia, cyclamen, watercress, canna lily, hippeastrum,
    bee balm, ball moss, foxglove, bougainvillea, camellia, mallow, mexican petunia, bromelia,
    blanket flower, trumpet creeper, blackberry lily
""")
DOWNLOAD = (
    "download 102flowers.tgz, imagelabels.mat and setid.mat from "
    "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/ and lay them out in the root as "
    "flowers-102/{jpg/image_00001.jpg, imagelabels.mat, setid.mat}"
)


def read(root: Path) -> ClassificationData:
    """The images that setid.mat gives to the test (tstid); to train, trnid and valid.

    Raises:
        InputError: Images or lists are missing, or do not belong together.
        EnvironmentProblem: The package scipy is not installed.
    """
    base = find_base(
        root, ("flowers-102", "flowers102"), holds="jpg", title="Flowers-102", download=DOWNLOAD
    )
    classes = numbers(load_mat(base / "imagelabels.mat", download=DOWNLOAD), "labels")
    splits = load_mat(base / "setid.mat", download=DOWNLOAD)
    if classes.min() < 1 or classes.max() > len(CLASSES):
        raise InputError(f"{base / 'imagelabels.mat'} holds no classes 1 to 102", fix=DOWNLOAD)
    train_ids = np.concatenate([numbers(splits, "trnid"), numbers(splits, "valid")])
    return ClassificationData(
        labels=plain_labels(CLASSES),
        test=_split(base, numbers(splits, "tstid"), classes),
        train=_split(base, train_ids, classes),
    )


def _split(base: Path, ids: np.ndarray, classes: np.ndarray) -> Split:
    if ids.min() < 1 or ids.max() > len(classes):
        raise InputError(
            f"{base / 'setid.mat'} names image {ids.max()}, of {len(classes)}", fix=DOWNLOAD
        )
    rows = ((base / "jpg" / f"image_{k:05d}.jpg", int(classes[k - 1]) - 1) for k in ids)
    return split_of(rows, title="Flowers-102", download=DOWNLOAD)


FLOWERS102 = ClassificationBenchmark(
    name="flowers102",
    title="Flowers-102 test",
    templates=("a photo of a {}, a type of flower.", "a close-up photo of a {}."),
    n_classes=102,
    n_images=6_149,
    usual_metric="mean_per_class",
    read=read,
    download=DOWNLOAD,
)
