"""Reading data of one's own: tables of pairs, images, sources."""
