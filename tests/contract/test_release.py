"""What is released: wheel and source distribution, their description, versions and dependencies."""

import importlib.util
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile

import pytest

import skdiffsmooth

ROOT = pathlib.Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    """Build both from a copy of the repository, without the network, by the setuptools that is here."""
    folder = tmp_path_factory.mktemp("dist")
    copy = folder / "copy"
    ignored = [".git", ".venv", "build", "dist", "_build", "gallery", "generated", "*.egg-info"]
    ignored += ["__pycache__", ".cache", ".*_cache", ".hypothesis"]
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*ignored))
    code = (
        "import setuptools.build_meta as backend;"
        f"backend.build_wheel({str(folder)!r}); backend.build_sdist({str(folder)!r})"
    )
    subprocess.run([sys.executable, "-c", code], cwd=copy, check=True, capture_output=True)
    return folder


def run(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_wheel_holds_the_package_only(dist):
    names = zipfile.ZipFile(next(dist.glob("*.whl"))).namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"skdiffsmooth", f"skdiffsmooth-{PROJECT['version']}.dist-info"}
    assert "skdiffsmooth/py.typed" in names
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "skdiffsmooth").rglob("*.py")}
    assert modules <= set(names)


@pytest.mark.slow
def test_the_wheel_works_where_only_its_dependencies_are(dist, tmp_path):
    """An environment of its own that shares only the dependencies' folder; no network is used."""
    environment = tmp_path / "bare"
    run(sys.executable, "-m", "venv", "--without-pip", environment)
    python = environment / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    site = next(environment.rglob("site-packages"))
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-index",
        "--no-deps",
        "--target",
        site,
    ]
    run(*pip, next(dist.glob("*.whl")))
    # The folder's .pth files, which may hold an editable installation, are not read from here.
    (site / "dependencies.pth").write_text(str(pathlib.Path(pytest.__file__).parents[1]))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    run(python, ROOT / ".ci" / "smoke.py", cwd=tmp_path, env=environment)


@pytest.mark.slow
def test_the_source_distribution_can_be_tested(dist, tmp_path):
    """`make check-sdist` runs all tests there; here the files are there, and some tests run."""
    with tarfile.open(next(dist.glob("*.tar.gz"))) as archive:
        archive.extractall(tmp_path, filter="data")
    root = tmp_path / f"skdiffsmooth-{PROJECT['version']}"
    tracked = [
        path
        for folder in ("tests", "examples", "benchmarks", "docs", ".ci", ".github", "skdiffsmooth")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {".py", ".md", ".rst", ".css", ".png", ".txt", ".yml", ".sh"}
        and not {"_build", "gallery", "generated", ".cache"} & set(path.parts)
    ]
    names = [path.relative_to(ROOT) for path in tracked]
    assert [str(name) for name in names if not (root / name).exists()] == []
    tests = ["tests/test_noise.py", "tests/contract/test_words.py"]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    run(sys.executable, "-m", "pytest", "-q", "-n0", *tests, cwd=root, env=environment)


def test_the_description_has_no_link_that_an_index_cannot_follow(dist):
    wheel = zipfile.ZipFile(next(dist.glob("*.whl")))
    text = wheel.read(f"skdiffsmooth-{PROJECT['version']}.dist-info/METADATA").decode()
    assert "Description-Content-Type: text/markdown" in text
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    assert links
    assert [link for link in links if not link.startswith("https://")] == []
    assert "Ten lines" in text


def test_links_of_the_description_lead_to_the_repository_once_it_has_an_address():
    spec = importlib.util.spec_from_file_location("setup_of_the_package", ROOT / "setup.py")
    setup = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(setup)
    text = "![a](docs/a.png) [b](docs/b.md#c) [d](https://d.org)"
    assert setup.describe(text, {}) == " b [d](https://d.org)"
    home = "https://host.org/us/it"
    assert setup.describe(text, {"Source": home}) == (
        f"![a]({home}/raw/main/docs/a.png) [b]({home}/blob/main/docs/b.md#c) [d](https://d.org)"
    )


def test_the_version_is_the_same_everywhere():
    version = PROJECT["version"]
    assert skdiffsmooth.__version__ == version
    for file, pattern in {
        "CITATION.cff": r"^version: (\S+)$",
        "conda/recipe.yaml": r'^  version: "(\S+)"$',
    }.items():
        assert re.search(pattern, (ROOT / file).read_text(), re.M)[1] == version
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text()


def bounds(requirements):
    """Return {name: oldest version} of requirements such as "numpy>=1.26"."""
    pairs = (re.match(r"([\w.-]+)(?:\[.*\])?>=([\d.]+)", text) for text in requirements)
    return {pair[1]: tuple(map(int, pair[2].split("."))) for pair in pairs if pair}


def test_the_oldest_dependencies_are_those_that_are_declared():
    lines = (ROOT / ".ci" / "oldest.txt").read_text().splitlines()
    oldest = bounds(line.replace("==", ">=") for line in lines if not line.startswith("#"))
    extras = PROJECT["optional-dependencies"]
    declared = bounds(PROJECT["dependencies"] + extras["test"])
    assert declared.keys() <= oldest.keys()
    for name, version in declared.items():
        assert oldest[name][: len(version)] == version, name
    recipe = (ROOT / "conda" / "recipe.yaml").read_text()
    for name, version in bounds(PROJECT["dependencies"]).items():
        package = {"torch": "pytorch"}.get(name, name)
        assert f"- {package} >={'.'.join(map(str, version))}\n" in recipe


def test_a_plain_installation_has_what_each_import_needs():
    """Modules import declared dependencies; those of extras are imported inside functions.

    `_oversampler.py` inherits from a class of imbalanced-learn: `tables` imports it on use, as
    test_package.py checks.
    """
    names = {re.split(r"[>=\[]", text)[0] for text in PROJECT["dependencies"]}
    names = {{"scikit-learn": "sklearn"}.get(name, name) for name in names}
    used = set()
    for path in (ROOT / "skdiffsmooth").rglob("*.py"):
        if path.name == "_oversampler.py":
            continue
        used.update(re.findall(r"^(?:import|from) (\w+)", path.read_text(), re.M))
    assert used - set(sys.stdlib_module_names) - {"skdiffsmooth"} <= names
