"""Tiny container images out of static programs, as OCI archives that `ctr images import` reads."""

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

MEDIA = "application/vnd.oci.image"


def write(archive: Path, name: str, files: Mapping[str, Path], entrypoint: Sequence[str]) -> None:
    """Write an image of one layer.

    Args:
        archive: The file to write.
        name: The image's full name, such as docker.io/library/busybox:1.
        files: The programs in it, by their path in the image without the leading slash.
        entrypoint: What a container runs unless told otherwise.
    """
    layer = _tar({path: source.read_bytes() for path, source in files.items()})
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
    named = {"annotations": {"io.containerd.image.name": name}}
    index = {"schemaVersion": 2, "manifests": [_descriptor(f"{MEDIA}.manifest.v1+json", manifest) | named]}
    blobs = {f"blobs/sha256/{hashlib.sha256(blob).hexdigest()}": blob for blob in (layer, config, manifest)}
    archive.write_bytes(_tar({"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": _json(index), **blobs}))


def _architecture() -> str:
    machine = platform.machine()
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


def _tar(files: Mapping[str, bytes]) -> bytes:
    """A tar of executable files that belong to root."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, content in files.items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(content), 0o755
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _digest(blob: bytes) -> str:
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"


def _descriptor(media: str, blob: bytes) -> dict[str, Any]:
    return {"mediaType": media, "digest": _digest(blob), "size": len(blob)}


def _json(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content).encode()
