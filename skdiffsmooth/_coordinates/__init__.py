"""Linear coordinates: the affine hull of the data, the metric, and maps to them and back."""
