"""Tuneyard's images by their Dockerfile, without a container engine and without a registry: buildah runs them.

The base image, which a registry would give, is made of Debian's packages. What was built is kept in the user's cache
by a hash of all that it was built from, so that only a change costs time; buildah keeps the layers, so that a change
of Tuneyard's own code costs one small layer. Standard library only.
"""

import ast
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from images import debian, oci
from images.debian import ImageError

SOURCE = Path(__file__).resolve().parents[2]
IMAGES = ("tuneyard", "examples")
KEPT = 3
"""Builds, and sets of layers, that stay in the cache; older ones go."""
RECIPE = Path("deploy", "images", "Dockerfile")
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
PIP_SETTINGS = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "retries")
"""What a build takes over from this machine's pip: how to reach an index, not what to install."""


def cache() -> Path:
    """The folder of what was built, by whichever checkout."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tuneyard" / "images"


def version(source: Path = SOURCE) -> str:
    """The version of Tuneyard, which is that of its images."""
    project = tomllib.loads((source / "pyproject.toml").read_text())["project"]
    return str(project["version"])


def name(image: str, source: Path = SOURCE) -> str:
    """The full name of an image: tuneyard or examples."""
    return f"docker.io/tuneyard/{image}:{version(source)}"


def inputs(source: Path = SOURCE) -> list[Path]:
    """All files that the images are built from: the Dockerfile, and what .dockerignore lets it see."""
    lines = (source / ".dockerignore").read_text().splitlines()
    allowed = [path for line in lines if line.startswith("!") for path in source.glob(line[1:])]
    files = {file for path in allowed for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file()}
    return [source / RECIPE, *sorted(file for file in files if "__pycache__" not in file.parts)]


def key(source: Path = SOURCE) -> str:
    """A hash of all that the images are built from."""
    return _hash(source, inputs(source))


def layers_key(source: Path = SOURCE) -> str:
    """A hash of what the large layers are built from: base, Dockerfile and locked dependencies."""
    return _hash(source, [path for path in inputs(source) if path == source / RECIPE or path.suffix == ".lock"])


def _hash(source: Path, files: Sequence[Path]) -> str:
    digest = hashlib.sha256(_base_key().encode())
    for path in files:
        digest.update(f"\0{path.relative_to(source)}\0{path.stat().st_mode & 0o111}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def ensure(source: Path = SOURCE) -> dict[str, Path]:
    """Build the images unless they are there already.

    Returns:
        The OCI archive of each image, in the cache.

    Raises:
        ImageError: They cannot be built here.
    """
    cache().mkdir(parents=True, exist_ok=True)
    with _lock(cache() / "lock"):
        place = cache() / key(source)
        if not place.is_dir():
            _build(source, place)
        os.utime(place)
        return {image: place / f"{image}.tar" for image in IMAGES}


def save(directory: Path, source: Path = SOURCE) -> list[oci.Image]:
    """Put the archives of the images into a folder, as tuneyard.tar and examples.tar.

    Returns:
        What they are.

    Raises:
        ImageError: They cannot be built here.
    """
    directory.mkdir(parents=True, exist_ok=True)
    saved = []
    for image, archive in ensure(source).items():
        target = directory / f"{image}.tar"
        target.unlink(missing_ok=True)
        try:
            target.hardlink_to(archive)
        except OSError:  # another file system
            shutil.copyfile(archive, target)
        saved.append(oci.read(target))
    return saved


def _build(source: Path, place: Path) -> None:
    """Build all images, then forget the oldest of what was built before."""
    for leftover in cache().glob("building-*"):
        shutil.rmtree(leftover)
    base = _base()
    layers = cache() / f"layers-{layers_key(source)}"
    with TemporaryDirectory(dir=cache(), prefix="building-") as scratch:
        buildah = _Buildah(Path(scratch), layers)
        buildah.import_base(base)
        made = Path(scratch, "made")
        made.mkdir()
        for image in IMAGES:
            began = time.monotonic()
            buildah.build(source, image, made / f"{image}.tar")
            _say(f"  {name(image, source)}: {time.monotonic() - began:.0f} s")
        made.rename(place)
    os.utime(layers)
    for kind in ("[0-9a-f]" * 16, "layers-*"):
        _forget([path for path in cache().glob(kind) if path.is_dir()])


def _forget(places: Sequence[Path]) -> None:
    """Remove all but the few that were used last."""
    for old in sorted(places, key=lambda path: path.stat().st_mtime)[:-KEPT]:
        shutil.rmtree(old)


def _base() -> Path:
    """The tar of the base image's files, made once."""
    archive = cache() / f"base-{_base_key()}.tar"
    if not archive.is_file():
        _say("Making a Debian with Python for the images: once, about 2 minutes.")
        began = time.monotonic()
        debian.base(archive)
        _say(f"  base: {time.monotonic() - began:.0f} s")
    return archive


def _base_key() -> str:
    recipe = "\n".join((debian.SUITE, *debian.PACKAGES, *debian.UNNEEDED))
    return hashlib.sha256(recipe.encode()).hexdigest()[:16]


class _Buildah:
    """Debian's buildah with a storage of its own, so that nothing of the machine's is touched."""

    base = "localhost/tuneyard/base:latest"

    def __init__(self, scratch: Path, storage: Path) -> None:
        program = debian.programs({"buildah": "buildah", "runc": "runc"})["buildah"]
        self.scratch = scratch
        self.command: list[str | Path] = [program, "--root", storage, "--runroot", scratch / "run"]
        self.settings = scratch / "pip.conf"
        self.settings.touch(mode=0o600)  # it may hold a password
        self.settings.write_text(pip_settings())

    def import_base(self, archive: Path) -> None:
        """Make an image of the base's files; it is a matter of seconds, and of none the second time."""
        if self.base in debian.run([*self.command, "images", "--format", "{{.Name}}:{{.Tag}}"]).split():
            return
        dockerfile = self.scratch / "Dockerfile"
        dockerfile.write_text(f"FROM scratch\nADD {archive.name} /\nENV PATH=/usr/local/bin:/usr/bin:/bin\n")
        context = self.scratch / "context"
        context.mkdir()
        (context / archive.name).hardlink_to(archive)
        self._bud("--file", dockerfile, "--tag", self.base, context)

    def build(self, source: Path, image: str, archive: Path) -> None:
        """Build a target of the Dockerfile and write its image as an archive."""
        arguments: list[str | Path] = ["--pull-never", "--target", image, "--build-arg", f"BASE={self.base}"]
        arguments += ["--build-arg", f"VERSION={version(source)}", "--secret", f"id=pip,src={self.settings}"]
        if CERTIFICATES.is_file():  # for the time of the build: those that this machine trusts
            arguments += ["--volume", f"{CERTIFICATES}:{CERTIFICATES}:ro"]
        self._bud(*arguments, "--file", source / RECIPE, "--tag", name(image, source), source)
        layout = self.scratch / image
        debian.run([*self.command, "push", name(image, source), f"oci:{layout}:{version(source)}"])
        oci.pack(layout, name(image, source), archive)

    def _bud(self, *arguments: str | Path) -> None:
        """Build without isolation that a nested machine may lack, without times, and with a cache of layers."""
        debian.run([*self.command, "bud", "--isolation", "chroot", "--timestamp", "0", "--layers", *arguments])


def pip_settings() -> str:
    """A pip.conf with how this machine reaches its package index, for the time of a build."""
    lines = ["[global]", "disable-pip-version-check = true"]
    if CERTIFICATES.is_file():
        lines.append(f"cert = {CERTIFICATES}")
    command = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    for line in listed.splitlines():  # such as: global.index-url='https://...', or :env:.timeout='60'
        option, _, text = line.partition("=")
        setting = option.rpartition(".")[2]
        if setting in PIP_SETTINGS and not any(known.startswith(f"{setting} =") for known in lines):
            lines.append(f"{setting} = {' '.join(ast.literal_eval(text).split())}")
    return "\n".join(lines) + "\n"


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("Another run is building images; waiting for it.")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


def main(arguments: Sequence[str]) -> int:
    """Build the images into a folder and print what they are."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        _say("usage: python -m images DIRECTORY")
        return 2
    began = time.monotonic()
    try:
        saved = save(Path(arguments[0]))
    except ImageError as error:
        _say(f"Error: {error}")
        return 1
    except KeyboardInterrupt:
        _say("Stopped; the layers built so far are kept.")
        return 130
    for image in saved:
        layers = " + ".join(f"{size / 1e6:.1f}" for size in image.layers)
        sys.stdout.write(f"{image.name}  {image.digest[:19]}  {sum(image.layers) / 1e6:.0f} MB ({layers})\n")
    _say(f"{time.monotonic() - began:.1f} s")
    return 0
