"""The local page of `dnreid serve`: search a gallery by an image, look through clusters and correct them."""
