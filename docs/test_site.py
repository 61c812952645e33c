"""Pages of the documentation in a browser: no error, no missing image, no cut code, no page too wide.

    .venv/bin/python -m pytest -n 0 docs/test_site.py

It needs the extra docs and Chromium, which `make docs` and the workflow of the pages have.
"""

import json
import pathlib
import re
import shutil
import subprocess
import sys
from urllib.parse import unquote

import pytest

ROOT = pathlib.Path(__file__).parents[1]
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
PAGES = ["index", "guide/index", "guide/tutorial", "guide/compare", "evidence/table"]
PHONE, DESKTOP = "390,844", "1280,900"

# Put first into the page; collects errors while it loads, and measures it when it has loaded.
PROBE = """<script>
const found = [];
const outside = (url) => url && url.startsWith("http");
console.error = (...words) => found.push("console: " + words.join(" "));
window.addEventListener("error", (event) => {
  const url = event.target.src || event.target.href;
  if (!outside(url)) found.push("error: " + (event.message || url));
}, true);
window.addEventListener("load", () => {
  for (const image of document.images)
    if (!outside(image.src) && !(image.complete && image.naturalWidth > 0))
      found.push("image: " + image.src);
  for (const block of document.querySelectorAll("pre"))
    if (block.scrollWidth > block.clientWidth + 1 &&
        !["auto", "scroll"].includes(getComputedStyle(block).overflowX))
      found.push("cut: " + block.textContent.slice(0, 60));
  for (const title of document.querySelectorAll("h1, h2, h3, p"))
    if (title.getBoundingClientRect().right > 0 && title.scrollWidth > title.clientWidth + 1 &&
        getComputedStyle(title).display === "block")
      found.push("title: " + title.textContent.slice(0, 60));
  if (document.documentElement.scrollWidth > window.innerWidth + 1)
    found.push("wide: " + document.documentElement.scrollWidth + " > " + window.innerWidth);
  document.documentElement.setAttribute("data-found", encodeURIComponent(JSON.stringify(found)));
});
</script>"""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Build the pages that are written by hand; the reference and the examples take much longer."""
    pytest.importorskip("sphinx", reason="needs the extra docs")
    pytest.importorskip("myst_parser", reason="needs the extra docs")
    pytest.importorskip("pydata_sphinx_theme", reason="needs the extra docs")
    out = tmp_path_factory.mktemp("site")
    options = {
        "extensions": "myst_parser,sphinx.ext.mathjax",
        "exclude_patterns": "_build,api,gallery,generated",
    }
    settings = [part for key, value in options.items() for part in ("-D", f"{key}={value}")]
    command = [sys.executable, "-m", "sphinx", "-Q", *settings, "-b", "html", ROOT / "docs", out]
    subprocess.run(command, check=True)
    return out


def problems(site, page, size):
    """Return what a browser window of a size finds wrong with a page."""
    path = site / f"{page}.html"
    probed = path.with_suffix(".probed.html")
    probed.write_text(path.read_text().replace("<head>", "<head>" + PROBE, 1))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    flags += ["--virtual-time-budget=3000", f"--window-size={size}", "--dump-dom"]
    run = subprocess.run(
        [CHROMIUM, *flags, probed.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    match = re.search(r'data-found="([^"]*)"', run.stdout)
    assert match, f"{page} did not finish loading"
    return json.loads(unquote(match[1]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "size"),
    [(page, PHONE) for page in PAGES] + [("index", DESKTOP), ("evidence/table", DESKTOP)],
)
def test_a_page_is_shown_whole(site, page, size):
    assert problems(site, page, size) == []


@pytest.mark.slow
def test_the_probe_finds_each_kind_of_problem(site):
    """A page with one of each: a test that cannot fail would find nothing in the others either."""
    (site / "bad.html").write_text(
        "<html><head></head><body><img src='no.png'><script>console.error('no'); f()</script>"
        "<pre style='overflow: hidden; width: 40px'>a line that is cut</pre>"
        "<h1 style='width: 40px'>ALongNameThatCannotBreak</h1>"
        "<div style='width: 9000px'>wide</div></body></html>"
    )
    kinds = {text.split(":")[0] for text in problems(site, "bad", DESKTOP)}
    assert kinds == {"console", "error", "image", "cut", "title", "wide"}
