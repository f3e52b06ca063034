"""Features of all images, ranking, scores and what is written of them."""
