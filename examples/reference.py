"""The published procedure, which is written down in `benchmarks/`, for pages of the gallery."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))

from published import (
    FIG_4,
    FIG_8,
    TRUE_CIRCLE,
    published_log_density,
    published_samples,
)

__all__ = ["FIG_4", "FIG_8", "TRUE_CIRCLE", "published_log_density", "published_samples"]
