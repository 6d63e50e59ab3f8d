"""Container images as OCI archives: what `ctr images import` and `podman load` read, made and named without either.

An archive is the tar of an image layout: blobs that are named by their SHA-256, and an index (OCI image
specification, image-layout.md). Everything written here depends on its input alone: files are sorted and have no
times, so that the same content has the same digest.
"""

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MEDIA = "application/vnd.oci.image"
NAME = "io.containerd.image.name"
"""The annotation by which containerd knows what an image is called."""


@dataclass(frozen=True)
class Image:
    """What an archive holds.

    Attributes:
        name: The image's full name, such as docker.io/tuneyard/tuneyard:0.1.0.
        digest: Of its manifest.
        layers: Bytes of each layer as it is stored, from the base upwards.
        config: Its user, environment, entry point, labels and so on, as in the OCI image configuration.
    """

    name: str
    digest: str
    layers: tuple[int, ...]
    config: Mapping[str, Any]


def write(archive: Path, name: str, files: Mapping[str, Path | str], entrypoint: Sequence[str]) -> None:
    """Write an image of one layer.

    Args:
        archive: The file to write.
        name: The image's full name.
        files: What it holds by path, without the leading slash: a program to copy, or where a symbolic link points.
        entrypoint: What a container runs unless told otherwise.
    """
    layer = _layer(files)
    settings = {"Entrypoint": list(entrypoint), "Env": ["PATH=/usr/bin:/bin"]}
    rootfs = {"type": "layers", "diff_ids": [_digest(layer)]}
    config = _json({"architecture": _architecture(), "os": "linux", "config": settings, "rootfs": rootfs})
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": f"{MEDIA}.manifest.v1+json",
            "config": _descriptor(f"{MEDIA}.config.v1+json", config),
            "layers": [_descriptor(f"{MEDIA}.layer.v1.tar", layer)],
        }
    )
    with tarfile.open(archive, "w") as tar:
        _add_head(tar, _descriptor(f"{MEDIA}.manifest.v1+json", manifest), name)
        for blob in (manifest, config, layer):
            _add(tar, f"blobs/sha256/{hashlib.sha256(blob).hexdigest()}", blob)


def pack(layout: Path, name: str, archive: Path) -> None:
    """Make an archive of the one image of a layout, under a name of one's own.

    Args:
        layout: A folder with oci-layout, index.json and blobs.
        name: The image's full name.
        archive: The file to write.

    Raises:
        ValueError: The layout holds no image, or several.
    """
    manifests = json.loads((layout / "index.json").read_bytes())["manifests"]
    if len(manifests) != 1:
        raise ValueError(f"{layout} holds {len(manifests)} images, not one")
    with tarfile.open(archive, "w") as tar:
        _add_head(tar, {key: manifests[0][key] for key in ("mediaType", "digest", "size")}, name)
        for blob in sorted((layout / "blobs" / "sha256").iterdir()):
            entry = tarfile.TarInfo(f"blobs/sha256/{blob.name}")
            entry.size = blob.stat().st_size
            with blob.open("rb") as content:
                tar.addfile(entry, content)


def read(archive: Path) -> Image:
    """Look into an archive of one image."""
    with tarfile.open(archive) as tar:

        def blob(path: str) -> Any:
            file = tar.extractfile(path)
            assert file is not None, path
            return json.load(file)

        (entry,) = blob("index.json")["manifests"]
        manifest = blob(_path(entry["digest"]))
        config = blob(_path(manifest["config"]["digest"]))["config"]
    layers = tuple(layer["size"] for layer in manifest["layers"])
    return Image(entry["annotations"][NAME], entry["digest"], layers, config)


def _layer(files: Mapping[str, Path | str]) -> bytes:
    """An uncompressed layer of executable files and links that belong to root."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, source in sorted(files.items()):
            if isinstance(source, str):
                entry = tarfile.TarInfo(path)
                entry.type, entry.linkname = tarfile.SYMTYPE, source
                tar.addfile(entry)
            else:
                _add(tar, path, source.read_bytes(), mode=0o755)
    return buffer.getvalue()


def _add_head(tar: tarfile.TarFile, manifest: Mapping[str, Any], name: str) -> None:
    """Begin an archive: the two files that say what it is and where to look."""
    _add(tar, "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
    _add(tar, "index.json", _json({"schemaVersion": 2, "manifests": [{**manifest, "annotations": {NAME: name}}]}))


def _add(tar: tarfile.TarFile, path: str, content: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(path)
    entry.size, entry.mode = len(content), mode
    tar.addfile(entry, io.BytesIO(content))


def _architecture() -> str:
    machine = platform.machine()
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


def _digest(blob: bytes) -> str:
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"


def _path(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def _descriptor(media: str, blob: bytes) -> dict[str, Any]:
    return {"mediaType": media, "digest": _digest(blob), "size": len(blob)}


def _json(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content).encode()
