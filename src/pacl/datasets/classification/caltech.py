"""Caltech-101 (Fei-Fei et al. 2004): 101 classes, without the folder BACKGROUND_Google.

The data set has no fixed split; it is customary to train on 30 random images per class and to test
on the rest. Here the first 30 of each class by file name are the training images, so that everybody
has the same ones. Others draw their own, or count the background as a class.
"""

from __future__ import annotations

from pathlib import Path

from pacl.datasets.classification.dataset import (
    ClassificationBenchmark,
    ClassificationData,
    list_class_folders,
    split_of,
)
from pacl.datasets.segmentation.dataset import find_base, names
from pacl.errors import InputError
from pacl.text.labels import Labels

N_TRAIN_PER_CLASS = 30
_BACKGROUND = "BACKGROUND_Google"
FOLDERS = names("""
    Faces, Faces_easy, Leopards, Motorbikes, accordion, airplanes, anchor, ant, barrel, bass,
    beaver, binocular, bonsai, brain, brontosaurus, buddha, butterfly, camera, cannon, car_side,
    ceiling_fan, cellphone, chair, chandelier, cougar_body, cougar_face, crab, crayfish, crocodile,
    crocodile_head, cup, dalmatian, dollar_bill, dolphin, dragonfly, electric_guitar, elephant, emu,
    euphonium, ewer, ferry, flamingo, flamingo_head, garfield, gerenuk, gramophone, grand_piano,
    hawksbill, headphone, hedgehog, helicopter, ibis, inline_skate, joshua_tree, kangaroo, ketch,
    lamp, laptop, llama, lobster, lotus, mandolin, mayfly, menorah, metronome, minaret, nautilus,
    octopus, okapi, pagoda, panda, pigeon, pizza, platypus, pyramid, revolver, rhino, rooster,
    saxophone, schooner, scissors, scorpion, sea_horse, snoopy, soccer_ball, stapler, starfish,
    stegosaurus, stop_sign, strawberry, sunflower, tick, trilobite, umbrella, watch, water_lilly,
    wheelchair, wild_cat, windsor_chair, wrench, yin_yang
""")
"""As the folders are called, in their order."""
_WORDS = {
    "Faces": "face in a room",
    "Faces_easy": "cropped face",
    "Leopards": "leopard",
    "Motorbikes": "motorbike",
    "airplanes": "airplane",
    "car_side": "side of a car",
    "cougar_body": "cougar's body",
    "cougar_face": "cougar's face",
    "crocodile_head": "crocodile's head",
    "flamingo_head": "flamingo's head",
    "garfield": "Garfield",
    "snoopy": "Snoopy",
    "water_lilly": "water lily",
    "yin_yang": "yin and yang symbol",
}
DOWNLOAD = (
    "download caltech-101.zip from https://data.caltech.edu/records/mzrjq-6wc02 and unpack it, and "
    "the archive 101_ObjectCategories.tar.gz in it: "
    "caltech-101/101_ObjectCategories/accordion/image_0001.jpg, ..."
)


def read(root: Path) -> ClassificationData:
    """The images of all class folders.

    Raises:
        InputError: The folders are missing, or are not those of Caltech-101.
    """
    base = find_base(
        root,
        ("caltech-101", "caltech101"),
        holds="101_ObjectCategories",
        title="Caltech-101",
        download=DOWNLOAD,
    )
    folders = list_class_folders(base / "101_ObjectCategories")
    folders.pop(_BACKGROUND, None)
    strange = sorted(folders.keys() - set(FOLDERS))
    if strange:
        raise InputError(
            f"{base} has folders that Caltech-101 does not: {', '.join(strange[:5])}",
            fix=DOWNLOAD,
        )
    train, test = [], []
    for class_id, name in enumerate(FOLDERS):
        rows = [(path, class_id) for path in folders.get(name, ())]
        train += rows[:N_TRAIN_PER_CLASS]
        test += rows[N_TRAIN_PER_CLASS:]
    words = tuple(_WORDS.get(name, name.replace("_", " ")) for name in FOLDERS)
    return ClassificationData(
        labels=Labels(names=words, prompts=tuple((word,) for word in words)),
        test=split_of(test, title="Caltech-101", download=DOWNLOAD, check=False),
        train=split_of(train, title="Caltech-101", download=DOWNLOAD, check=False),
    )


CALTECH101 = ClassificationBenchmark(
    name="caltech101",
    title="Caltech-101 but the first 30 images of each class",
    templates=("a photo of a {}.", "a drawing of a {}.", "a picture of the {}."),
    n_classes=101,
    n_images=8_677 - 101 * N_TRAIN_PER_CLASS,
    usual_metric="mean_per_class",
    read=read,
    download=DOWNLOAD,
)
