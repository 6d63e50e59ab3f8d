"""What the development cluster does without starting one."""

import fcntl
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from devcluster import cluster, pki, tools
from devcluster.__main__ import main


def test_stop_spares_a_process_that_took_over_the_pid(tmp_path: Path) -> None:
    directory = tmp_path / "cluster"
    directory.mkdir()
    other = subprocess.Popen(["sleep", "60"])
    try:
        (directory / "etcd.pid").write_text(str(other.pid))
        assert cluster.status(directory)["etcd"] is None
        cluster.stop(directory)
        assert other.poll() is None
        assert not directory.exists()
    finally:
        other.kill()
        other.wait()


def test_stop_ends_a_process_that_holds_its_pid_file(tmp_path: Path) -> None:
    directory = tmp_path / "cluster"
    directory.mkdir()
    with (directory / "kwok.pid").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        child = subprocess.Popen(["sleep", "60"], pass_fds=[file.fileno()])
        file.write(str(child.pid))
    assert cluster.status(directory)["kwok"] == child.pid
    cluster.stop(directory)
    assert child.wait(timeout=10) == -9


def test_a_folder_in_use_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "ensure", lambda *_: None)
    with pytest.raises(cluster.ClusterError, match="already"):
        cluster.start(tmp_path)
    assert tmp_path.exists()


def test_a_component_that_ends_at_once_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "ensure", lambda *_: None)
    monkeypatch.setattr(tools, "path", lambda name: tmp_path / name)
    (tmp_path / "server").write_text("#!/bin/sh\necho address already in use; exit 7\n")
    (tmp_path / "kube-apiserver").write_text("#!/bin/sh\nexec sleep 60\n")
    for name in ("server", "kube-apiserver"):
        (tmp_path / name).chmod(0o755)
    with pytest.raises(cluster.ClusterError, match=r"(?s)ended with status 7.*address already in use"):
        cluster.start(tmp_path / "cluster")
    assert not (tmp_path / "cluster").exists()


def test_status_of_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--directory", str(tmp_path)]) == 1
    assert capsys.readouterr().out.count("not running") == len(cluster.START_ORDER)


def test_env_of_nothing_says_how_to_start_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["env", "--directory", str(tmp_path)]) == 1
    assert "make cluster" in capsys.readouterr().err


def test_key_material_is_for_its_owner_alone_and_new_each_time(tmp_path: Path) -> None:
    first, second = pki.create(tmp_path / "a"), pki.create(tmp_path / "b")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "a").iterdir()}
    assert set(modes.values()) == {0o600}
    assert first.admin_token != second.admin_token
    assert first.account_key.read_bytes() != second.account_key.read_bytes()


def test_a_module_whose_versions_change_is_built_anew_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tools, "MODULES", tmp_path)
    for module in ("kwok", "helm"):
        (tmp_path / module).mkdir()
        (tmp_path / module / "go.sum").write_text("one")
    before = {module: tools.directory(module) for module in ("kwok", "helm")}
    (tmp_path / "kwok" / "go.sum").write_text("two")
    assert tools.directory("kwok") != before["kwok"]
    assert tools.directory("helm") == before["helm"]


def test_every_program_is_pinned_by_its_module() -> None:
    for packages in tools.GROUPS.values():
        for module, names in packages.items():
            pins = (tools.MODULES / module / "go.mod").read_text()
            ours = f"module tuneyard.dev/deploy/tools/{module}\n"
            assert all(f"{name}\n" in pins for name in names) or names == (ours.split()[1],)


def test_a_failed_build_says_what_go_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    go = tmp_path / "go"
    go.write_text(
        '#!/bin/sh\n[ "$1" = version ] && echo go version go1.26.8 linux/amd64 && exit\necho no proxy >&2; exit 1\n'
    )
    go.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert tools.main([]) == 1
    assert "no proxy" in capsys.readouterr().err
    assert not tools.built()


def test_build_tools_script_finds_what_is_built(tmp_path: Path) -> None:
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "PYTHON": sys.executable}
    place = tmp_path / "tuneyard" / "tools" / tools.directory("helm").name
    place.mkdir(parents=True)
    (place / "helm").touch()
    script = tools.MODULES.parent / "build-tools"
    done = subprocess.run([script, "helm"], env=environment, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == (f"{place}\n", "")


def test_build_tools_script_names_the_groups_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        tools.main(["controlplane"])
    assert "there are control-plane, node" in capsys.readouterr().err
