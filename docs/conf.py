"""The documentation: pages in docs/, a reference from docstrings, examples from examples/.

``make docs`` builds it in docs/_build/html without running the examples, ``make gallery`` runs them too.
"""

import os
import pathlib
import shutil
import sys
import warnings

import skdiffsmooth

project = "skdiffsmooth"
author = "The skdiffsmooth developers"
version = release = skdiffsmooth.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build"]
templates_path = ["_templates"]

myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
autosummary_generate = True
numpydoc_class_members_toctree = False
numpydoc_show_class_members = False

html_theme = "pydata_sphinx_theme"
html_title = "skdiffsmooth"
html_show_sourcelink = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_context = {"default_mode": "auto"}  # follows the browser, light or dark
html_theme_options = {
    "navbar_align": "left",
    "show_prev_next": False,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}
# The front page is a list of cards; a list of sections beside it would repeat the bar above.
html_sidebars = {"index": []}

# One process of one thread does not fight for cores, and its times can be compared.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# An example that warns shows it on its page only where it means to.
warnings.filterwarnings("ignore", message=".*FigureCanvasAgg is non-interactive.*")
# Some compare kernel density estimates down to bandwidths that copy rows, which is what they show.
warnings.filterwarnings("ignore", message=".*most draws are near-copies of training rows")

# For `gallery_style`, which the gallery imports by name.
sys.path.insert(0, str(pathlib.Path(__file__).parent))

sphinx_gallery_conf = {
    "reset_modules": ("matplotlib", "gallery_style.use_palette"),
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "backreferences_dir": "generated/backreferences",
    "doc_module": ("skdiffsmooth",),
    "reference_url": {"skdiffsmooth": None},
    "within_subsection_order": "FileNameSortKey",
    # Scripts for a terminal, and a module that two pages share, are no pages.
    "ignore_pattern": r"(^|/)(?!plot_)[^/]*\.py$",
    "abort_on_example_error": True,
    # Pages print what they show; the last value of a section (a legend, say) is none of it.
    "capture_repr": (),
    "default_thumb_file": str(pathlib.Path(__file__).parent / "images" / "cards" / "compare.png"),
    "download_all_examples": False,
    "show_signature": False,
    "min_reported_time": 1,
    "write_computation_times": False,
}


def show_thumbnails(app):
    """Give pages that were not run the small pictures of docs/images/thumbs, where there is one."""
    if getattr(app.config, "plot_gallery", True) not in (0, "0", False):
        return
    source = pathlib.Path(app.srcdir)
    for picture in (source / "images" / "thumbs").glob("*.png"):
        thumbs = source / "gallery" / "images" / "thumb"
        shutil.copy(picture, thumbs / f"sphx_glr_{picture.stem}_thumb.png")


def setup(app):
    """Register what happens after the gallery's pages are written."""
    app.connect("builder-inited", show_thumbnails, priority=900)
