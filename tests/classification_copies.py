"""Small copies of the classification sets in their official layouts, a few pictures each."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

from pacl.datasets.classification.caltech import FOLDERS

GOLDFISH, CRANE_BIRD, CRANE, CORGI, CARDIGAN = (
    "n01443537",
    "n02012849",
    "n03126707",
    "n02113186",
    "n02963159",
)
SYNSETS = {
    GOLDFISH: "goldfish, Carassius auratus",
    CRANE_BIRD: "crane",
    CORGI: "Cardigan, Cardigan Welsh corgi",
    CARDIGAN: "cardigan",
    CRANE: "crane",
}
SYNSET_NAMES = ("goldfish", "crane bird", "Cardigan Welsh corgi", "cardigan", "construction crane")
"""Of the same, in the order of the ids."""


def save_picture(path: Path, grey: int = 128) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (9, 7), (grey, grey, grey)).save(path)


def write_lines(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def save_struct(path: Path, name: str, **fields: list[object]) -> None:
    """A MATLAB struct array of one row, as the sets have them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    length = len(next(iter(fields.values())))
    table = np.zeros((1, length), dtype=[(field, object) for field in fields])
    for field, values in fields.items():
        table[field][0, :] = values
    savemat(path, {name: table})


def copy_imagenet(root: Path) -> list[int]:
    """In folders by class, with Kaggle's list of words; training pictures of two classes."""
    base = root / "imagenet"
    write_lines(base / "LOC_synset_mapping.txt", *(f"{k} {v}" for k, v in SYNSETS.items()))
    for number, wnid in enumerate(SYNSETS):
        save_picture(base / "val" / wnid / f"ILSVRC2012_val_{number + 1:08d}.JPEG")
    save_picture(base / "train" / CRANE / "x_1.JPEG")
    save_picture(base / "train" / GOLDFISH / "x_1.JPEG")
    return [0, 1, 2, 3, 4]


def copy_imagenet_kaggle(root: Path) -> list[int]:
    """As Kaggle has it: side by side, with a table that gives boxes too."""
    top = root / "ILSVRC"
    write_lines(top / "LOC_synset_mapping.txt", *(f"{k} {v}" for k, v in SYNSETS.items()))
    wnids = [CARDIGAN, GOLDFISH, GOLDFISH, CRANE, CORGI, CRANE_BIRD]
    with (top / "LOC_val_solution.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("ImageId", "PredictionString"))
        for number, wnid in reversed(list(enumerate(wnids, start=1))):
            save_picture(top / f"Data/CLS-LOC/val/ILSVRC2012_val_{number:08d}.JPEG")
            rows.writerow((f"ILSVRC2012_val_{number:08d}", f"{wnid} 1 2 3 4 {wnid} 5 6 7 8"))
    return [sorted(SYNSETS).index(wnid) for wnid in wnids]


def copy_imagenet_devkit(root: Path) -> list[int]:
    """The official archives: side by side, classes by ILSVRC id, whose order is another."""
    base = root / "ILSVRC2012"
    kit = base / "ILSVRC2012_devkit_t12" / "data"
    ids = {CRANE: 1, GOLDFISH: 2, CARDIGAN: 3, CORGI: 4, CRANE_BIRD: 5, "n00001740": 6}
    save_struct(
        kit / "meta.mat",
        "synsets",
        ILSVRC2012_ID=[float(number) for number in ids.values()],
        WNID=list(ids),
        words=[SYNSETS.get(wnid, "entity") for wnid in ids],
    )
    wnids = [GOLDFISH, CRANE, CRANE_BIRD, CORGI, CARDIGAN]
    write_lines(kit / "ILSVRC2012_validation_ground_truth.txt", *(str(ids[wnid]) for wnid in wnids))
    write_lines(base / "synset_words.txt", *(f"{k} {v}" for k, v in SYNSETS.items()))
    for number in range(1, len(wnids) + 1):
        save_picture(base / "val" / f"ILSVRC2012_val_{number:08d}.JPEG")
    return [sorted(SYNSETS).index(wnid) for wnid in wnids]


def copy_variant(root: Path, folder: str) -> list[int]:
    """ImageNet-A and -R: folders by id, and a README with one word per class."""
    lines = ("Some text.", "", f"{GOLDFISH} goldfish", f"{CRANE} crane", f"{CORGI} Welsh_corgi")
    write_lines(root / folder / "README.txt", *lines)
    for wnid, n_images in ((GOLDFISH, 1), (CRANE, 2), (CORGI, 1)):
        for number in range(n_images):
            save_picture(root / folder / wnid / f"0.{number}_jellyfish.jpg")
    return [0, 1, 2, 2]


def copy_imagenet_v2(root: Path) -> list[int]:
    """Folders by number: in order of text, 10 comes before 2."""
    ids = [f"n{number:08d}" for number in range(1000)]
    write_lines(root / "LOC_synset_mapping.txt", *(f"{wnid} word {wnid}" for wnid in ids))
    for number in (10, 2, 999):
        save_picture(root / f"imagenetv2-matched-frequency-format-val/{number}/a.jpeg")
    return [2, 10, 999]


def copy_caltech(root: Path) -> list[int]:
    base = root / "caltech-101" / "101_ObjectCategories"
    for name in ("BACKGROUND_Google", "yin_yang"):
        for number in range(1, 33):
            save_picture(base / name / f"image_{number:04d}.jpg")
    save_picture(base / "anchor" / "image_0001.jpg")
    return [FOLDERS.index("yin_yang")] * 2


def copy_cifar10(root: Path) -> list[int]:
    base = root / "cifar-10-batches-bin"
    write_lines(base / "batches.meta.txt", "airplane", "automobile", "bird", "")
    for name, classes in (("data_batch_1", (0, 1)), ("data_batch_2", (2,)), ("test_batch", (2, 0))):
        records = [bytes([k]) + cifar_planes() for k in classes]
        (base / f"{name}.bin").write_bytes(b"".join(records))
    return [2, 0]


def copy_cifar100(root: Path) -> list[int]:
    """The coarse class comes first; it is not the one that is scored."""
    base = root / "cifar-100-binary"
    write_lines(base / "fine_label_names.txt", "apple", "aquarium_fish", "baby")
    for name, classes in (("train", (0,)), ("test", (2, 1))):
        records = [bytes([17, k]) + cifar_planes() for k in classes]
        (base / f"{name}.bin").write_bytes(b"".join(records))
    return [2, 1]


def cifar_planes() -> bytes:
    """A picture whose red grows to the right, whose green grows downwards, without blue."""
    ramp = np.arange(32, dtype=np.uint8)
    return np.stack(
        [np.tile(ramp, (32, 1)), np.tile(ramp[:, None], (1, 32)), np.zeros((32, 32), np.uint8)]
    ).tobytes()


def copy_food(root: Path) -> list[int]:
    base = root / "food-101"
    write_lines(base / "meta" / "classes.txt", "apple_pie", "baby_back_ribs", "waffles")
    write_lines(base / "meta" / "test.txt", "waffles/12", "apple_pie/3")
    write_lines(base / "meta" / "train.txt", "baby_back_ribs/7")
    for stem in ("waffles/12", "apple_pie/3", "baby_back_ribs/7"):
        save_picture(base / "images" / f"{stem}.jpg")
    return [2, 0]


def copy_flowers(root: Path) -> list[int]:
    base = root / "flowers-102"
    for number in range(1, 6):
        save_picture(base / "jpg" / f"image_{number:05d}.jpg")
    savemat(base / "imagelabels.mat", {"labels": np.array([[102, 1, 77, 54, 1]], np.uint8)})
    ids = {"trnid": [[5]], "valid": [[4]], "tstid": [[3, 1, 2]]}
    savemat(base / "setid.mat", {name: np.array(each, np.uint16) for name, each in ids.items()})
    return [76, 101, 0]


def copy_pets(root: Path) -> list[int]:
    base = root / "oxford-iiit-pet"
    write_lines(
        base / "annotations" / "test.txt", "yorkshire_terrier_9 37 2 25", "Abyssinian_2 1 1 1"
    )
    write_lines(base / "annotations" / "trainval.txt", "american_bulldog_1 2 2 1")
    for stem in ("yorkshire_terrier_9", "Abyssinian_2", "american_bulldog_1"):
        save_picture(base / "images" / f"{stem}.jpg")
    return [2, 0]


def copy_cars(root: Path) -> list[int]:
    base = root / "stanford_cars"
    (base / "devkit").mkdir(parents=True)
    names = np.array([["AM General Hummer SUV 2000", "Acura RL Sedan 2012"]], dtype=object)
    savemat(base / "devkit" / "cars_meta.mat", {"class_names": names})
    save_struct(
        base / "cars_test_annos_withlabels.mat",
        "annotations",
        **{"class": [2, 1], "fname": ["00001.jpg", "00002.jpg"]},
    )
    save_struct(
        base / "devkit" / "cars_train_annos.mat",
        "annotations",
        **{"class": [1], "fname": ["00001.jpg"]},
    )
    for name in ("cars_test/00001.jpg", "cars_test/00002.jpg", "cars_train/00001.jpg"):
        save_picture(base / name)
    return [1, 0]


def copy_dtd(root: Path) -> list[int]:
    base = root / "dtd"
    write_lines(base / "labels" / "test1.txt", "zigzagged/zigzagged_0001.jpg", "banded/b_1.jpg")
    write_lines(base / "labels" / "train1.txt", "polka-dotted/p_1.jpg")
    write_lines(base / "labels" / "val1.txt", "banded/b_2.jpg")
    for name in ("zigzagged/zigzagged_0001", "banded/b_1", "polka-dotted/p_1", "banded/b_2"):
        save_picture(base / "images" / f"{name}.jpg")
    return [2, 0]


def copy_folder(root: Path) -> list[int]:
    for name in ("test/red_bus/1.jpg", "test/red_bus/2.png", "test/boat/1.jpg"):
        save_picture(root / name)
    save_picture(root / "train/boat/9.jpg")
    return [0, 1, 1]


COPIES: dict[str, Callable[[Path], list[int]]] = {
    "imagenet": copy_imagenet,
    "imagenet-a": lambda root: copy_variant(root, "imagenet-a"),
    "imagenet-r": lambda root: copy_variant(root, "imagenet-r"),
    "imagenet-v2": copy_imagenet_v2,
    "caltech101": copy_caltech,
    "cifar10": copy_cifar10,
    "cifar100": copy_cifar100,
    "food101": copy_food,
    "flowers102": copy_flowers,
    "pets": copy_pets,
    "cars": copy_cars,
    "dtd": copy_dtd,
    "image-folder": copy_folder,
}
"""What writes each set below a root and gives the class ids of its test pictures."""
N_TRAIN = {
    "imagenet": 2,
    "caltech101": 31,
    "cifar10": 3,
    "cifar100": 1,
    "food101": 1,
    "flowers102": 2,
    "pets": 1,
    "cars": 1,
    "dtd": 2,
    "image-folder": 1,
}
"""Training pictures of the copies that have some."""
