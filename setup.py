"""The description for package indexes: README.md, with links that work outside the repository.

All other metadata is in pyproject.toml; only this needs code.
"""

import pathlib
import re
import tomllib

from setuptools import setup

ROOT = pathlib.Path(__file__).parent


def describe(text, urls):
    """Return a README whose relative links lead to the addresses of `[project.urls]`.

    Without the address "Source" links become their text, and pictures go.
    """
    source = urls.get("Source", "").rstrip("/")

    def link(match):
        mark, label, target = match.groups()
        if target.startswith(("http", "#")):
            return match[0]
        if not source:
            return "" if mark else label
        return f"{mark}[{label}]({source}/{'raw' if mark else 'blob'}/main/{target})"

    return re.sub(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)", link, text)


if __name__ == "__main__":
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    setup(
        long_description=describe(
            (ROOT / "README.md").read_text(encoding="utf-8"), project.get("urls", {})
        ),
        long_description_content_type="text/markdown",
    )
