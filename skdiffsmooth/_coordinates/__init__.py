"""Linear coordinates: the affine hull of the data, the metric, and the way there and back."""
