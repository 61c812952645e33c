"""The palette of the gallery: curves differ in colour and line, for readers with any colour vision."""

import matplotlib as mpl
from cycler import cycler

from skdiffsmooth.displays import STYLES


def use_palette(gallery_conf, name):
    """Give the plots of the next example the colours and lines of the library's displays."""
    mpl.rcParams["axes.prop_cycle"] = cycler(
        color=[style.color for style in STYLES], linestyle=[style.linestyle for style in STYLES]
    )
