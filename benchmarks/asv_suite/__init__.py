"""What asv measures at each commit: time, peak memory and error."""

import sys
from pathlib import Path

# The data and the rivals are those of the scripts in the folder above.
sys.path.insert(0, str(Path(__file__).parents[1]))
