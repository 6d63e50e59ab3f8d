"""Tuneyard's container images, and the small ones that nodes of a local cluster need besides."""

from pathlib import Path

from images import debian, oci
from images.build import ensure, name, save
from images.debian import ImageError

__all__ = ["PAUSE", "TINY", "ImageError", "ensure", "name", "pause", "save", "tiny"]

PAUSE = "docker.io/local/pause:1"
TINY = "docker.io/local/tiny:1"


def pause(archive: Path) -> None:
    """Write the image of the container that keeps a pod's namespaces open, and does nothing else.

    Args:
        archive: The file to write.

    Raises:
        ImageError: catatonit is missing and cannot be installed.
    """
    program = debian.programs({"catatonit": "catatonit"})["catatonit"]
    oci.write(archive, PAUSE, {"pause": program}, ["/pause", "-P"])


def tiny(archive: Path) -> None:
    """Write an image with a shell and the usual small tools in 2 MB, for tests.

    Args:
        archive: The file to write.

    Raises:
        ImageError: A static busybox is missing and cannot be installed.
    """
    program = debian.programs({"busybox": "busybox-static"})["busybox"]
    tools = debian.run([program, "--list"]).split()
    links = {f"bin/{tool}": "busybox" for tool in tools if tool != "busybox"}
    oci.write(archive, TINY, {"bin/busybox": program, **links}, ["/bin/sh"])
