"""How much of the machine a process may use, by its cgroup."""

from __future__ import annotations

from pathlib import Path

import pytest

from tuneyard_operator.worlds import capacity

INF = float("inf")


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")
    return root


@pytest.mark.parametrize(
    ("own", "files", "cores", "memory"),
    [
        ("", {}, INF, None),
        ("0::/", {"cpu.max": "max 100000", "memory.max": "max"}, INF, None),
        ("0::/", {"cpu.max": "250000 100000", "memory.max": "1048576"}, 2.5, 1048576),
        ("0::/a/b", {"a/cpu.max": "100000 100000", "a/b/cpu.max": "400000 100000", "a/b/memory.max": "9"}, 1.0, 9),
        ("0::/not/seen", {"cpu.max": "300000 100000"}, 3.0, None),
        (
            "4:memory:/docker/x\n3:cpu,cpuacct:/docker/x\n0::/",
            {"memory/memory.limit_in_bytes": "77", "cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000"},
            0.5,
            77,
        ),
        (
            "3:cpu,cpuacct:/",
            {"cpu,cpuacct/cpu.cfs_quota_us": "-1", "cpu,cpuacct/cpu.cfs_period_us": "100000"},
            INF,
            None,
        ),
    ],
)
def test_limits_of_cgroups(tmp_path, own, files, cores, memory):
    root = tree(tmp_path / "fs", files)
    (tmp_path / "own").write_text(own)
    assert min(capacity.cpu_quotas(root, tmp_path / "own")) == cores
    limits = [limit for limit in capacity.memory_limits(root, tmp_path / "own") if limit < 2**62]
    assert min(limits, default=None) == memory


def test_this_machine_has_some():
    assert capacity.cores() > 0
    assert capacity.memory() > 2**20
