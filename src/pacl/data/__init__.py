"""Reading data: image-caption pairs, nouns, token caches, folders of images and masks."""
