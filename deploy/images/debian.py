"""What the machine itself gives to images: programs of Debian packages, and a small Debian with Python."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

SUITE = "trixie"
PACKAGES = ("ca-certificates", "python-is-python3", "python3", "python3-venv")
"""Beyond the least that Debian needs: what the Dockerfile asks of its base."""
UNNEEDED = (
    "var/cache/*",
    "var/lib/apt/lists/*",
    "var/log/*",
    "usr/share/doc/*",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/man",
    "usr/lib/python3*/**/__pycache__",  # compiled anew by the Dockerfile, for files without times
    "usr/share/python3/**/__pycache__",
)


class ImageError(RuntimeError):
    """An image cannot be built here; the message says why."""


def programs(packages: Mapping[str, str]) -> dict[str, Path]:
    """Where programs are, after installing the missing ones.

    Args:
        packages: The Debian package of each program.

    Returns:
        The path of each program.

    Raises:
        ImageError: One is missing and cannot be installed.
    """
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"  # debootstrap is for root, whose PATH this is
    missing = sorted({package for program, package in packages.items() if not shutil.which(program, path=path)})
    if missing:
        _install(missing)
    found = {program: shutil.which(program, path=path) for program in packages}
    return {program: Path(place) for program, place in found.items() if place is not None}


def _install(packages: Sequence[str]) -> None:
    command = f"apt-get install --yes --no-install-recommends {' '.join(packages)}"
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise ImageError(f"Debian packages are missing; install them: {command}")
    for part in ("apt-get update", command):
        run([*part.split(), "-o", "DPkg::Lock::Timeout=120"], {**os.environ, "DEBIAN_FRONTEND": "noninteractive"})


def base(archive: Path) -> None:
    """Make a tar of a small Debian with Python, about 120 MB.

    Args:
        archive: The file to write.

    Raises:
        ImageError: Not root, debootstrap is missing, or it failed.
    """
    if os.geteuid() != 0:
        raise ImageError(
            "Only root can make a Debian from its packages; run this as root, or build deploy/images/Dockerfile "
            "with Docker or Podman"
        )
    tools = programs({"debootstrap": "debootstrap", "unshare": "util-linux"})
    with TemporaryDirectory(dir=archive.parent, prefix="building-") as scratch:
        root = Path(scratch, "root")
        apart: list[str | Path] = [
            tools["unshare"],
            "--mount",
        ]  # what debootstrap mounts is gone with it, even if it is killed
        run([*apart, tools["debootstrap"], "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, root])
        for pattern in UNNEEDED:
            for path in root.glob(pattern):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        made = archive.with_suffix(".part")
        run(["tar", "--create", "--file", made, "--directory", root, "--sort=name", "--numeric-owner", "."])
        made.rename(archive)


def run(command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> str:
    """Run a program to its end.

    Returns:
        What it printed.

    Raises:
        ImageError: It failed, with the last of what it said.
    """
    done = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode != 0:
        said = f"{done.stdout.strip()[-1500:]}\n{done.stderr.strip()[-1500:]}".strip()
        raise ImageError(f"`{' '.join(map(str, command))}` failed:\n{said}")
    return done.stdout
