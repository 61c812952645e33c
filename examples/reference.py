"""The published procedure and a small network of `benchmarks/`, for pages of the gallery."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))

from local_networks import Convolutions, Denoiser
from published import (
    FIG_4,
    FIG_8,
    TRUE_CIRCLE,
    published_log_density,
    published_samples,
)

__all__ = [
    "FIG_4",
    "FIG_8",
    "TRUE_CIRCLE",
    "Convolutions",
    "Denoiser",
    "published_log_density",
    "published_samples",
]
