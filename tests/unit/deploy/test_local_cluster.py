"""A cluster with real nodes without starting one: addresses, configurations, what is missing."""

import json
import subprocess
import tomllib
from pathlib import Path

import pytest

import images
from devcluster import cgroups, cluster, components, local, machine, network, nodes, pki, tools
from devcluster.__main__ import main
from devcluster.nodes import Nodes
from devcluster.processes import ClusterError


def test_a_network_avoids_what_is_in_use() -> None:
    free = network.choose(["10.200.0.0/16", "10.202.7.9", "192.168.0.0/16"])
    assert [one.number for one in free[:3]] == [201, 203, 204]


def test_no_free_network_is_said() -> None:
    with pytest.raises(ClusterError, match="ip route"):
        network.choose(["10.0.0.0/8"])


def test_addresses_of_a_cluster_are_all_different() -> None:
    one = network.Network(200)
    indices = range(1, network.MOST_NODES + 1)
    addresses = [one.host, *(one.node(index) for index in indices)]
    assert len(set(addresses)) == len(addresses)
    assert not {one.pods(index) for index in indices} & {"10.200.0.0/24"}
    assert len(one.interface) < 16, "the kernel takes no longer names"


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Nodes:
    """Two nodes that were prepared, and not started."""
    monkeypatch.setattr(images, "pause", lambda _: None)
    prepared = Nodes(tmp_path, number=201, count=2, gpus=2, outlive_parent=False)
    prepared.save()
    prepared.prepare(pki.create(tmp_path / "pki", address=prepared.network.host), "https://10.201.0.1:6443")
    return prepared


def test_what_is_prepared_is_found_again(two: Nodes) -> None:
    assert nodes.of(two.directory) == two
    assert nodes.of(two.directory / "elsewhere") is None


def test_a_node_is_itself_to_the_api_server(two: Nodes) -> None:
    certificate = two.directory / "pki" / "node-2.crt"
    command = ["openssl", "x509", "-in", str(certificate), "-noout", "-subject", "-ext", "extendedKeyUsage"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "O = system:nodes, CN = system:node:node-2" in said
    assert "TLS Web Client Authentication" in said
    assert "system:masters" not in said


def test_a_kubelet_asks_the_api_server_who_may_ask_it(tmp_path: Path) -> None:
    settings = nodes.kubelet_configuration(tmp_path, (tmp_path, tmp_path), "/group/node-1", tmp_path)
    assert settings["authentication"]["anonymous"] == {"enabled": False}
    assert settings["authentication"]["webhook"] == {"enabled": True}
    assert settings["authorization"] == {"mode": "Webhook"}


def test_containerd_s_configuration_is_toml(tmp_path: Path) -> None:
    settings = tomllib.loads(nodes.containerd_configuration(tmp_path))
    assert settings["plugins"]["io.containerd.cri.v1.images"]["pinned_images"]["sandbox"] == images.PAUSE


def test_each_node_has_pods_and_programs_of_its_own(two: Nodes) -> None:
    folders = [two.directory / "nodes" / name for name in two.names]
    subnets = [json.loads((folder / "cni/10-pods.conflist").read_text())["plugins"][0]["ipam"] for folder in folders]
    assert [subnet["ranges"][0][0]["subnet"] for subnet in subnets] == ["10.201.1.0/24", "10.201.2.0/24"]
    programs = json.loads((folders[1] / "node.json").read_text())["programs"]
    assert list(programs) == ["containerd", "kubelet", "kube-proxy", "fakegpu"]
    assert "--node-ip=10.201.0.12" in programs["kubelet"]
    assert "-gpus=2" in programs["fakegpu"]


def test_an_unknown_node_is_refused(two: Nodes) -> None:
    with pytest.raises(ClusterError, match="no real node node-3; there are node-1, node-2"):
        two.kill("node-3")


def test_a_node_of_a_cluster_that_is_down_is_refused(two: Nodes) -> None:
    with pytest.raises(ClusterError, match="the cluster is down"):
        two.start("node-1")


def test_a_cluster_without_real_nodes_says_so(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="no real nodes"):
        cluster.connect(tmp_path).load_image(tmp_path / "image.tar")


def test_what_cannot_be_loaded_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["load", "--directory", str(tmp_path), str(tmp_path / "image.tar")]) == 1
    assert "There is no file" in capsys.readouterr().err
    (tmp_path / "image.tar").touch()
    assert main(["load", "--directory", str(tmp_path), str(tmp_path / "image.tar")]) == 1
    assert "no real nodes" in capsys.readouterr().err


def test_only_a_cluster_with_real_nodes_leaves_loopback(tmp_path: Path) -> None:
    for real, address in ((False, "127.0.0.1"), (True, "10.201.0.1")):
        keys = pki.create(tmp_path / str(real), address=address)
        control = components.Control(
            directory=tmp_path, address=address, port=1, credentials=keys, kubeconfig=tmp_path, real=real
        )
        arguments = control.apiserver()
        assert f"--bind-address={address}" in arguments
        assert any("NodeRestriction" in argument for argument in arguments) == real
        assert any("kubelet-client-certificate" in argument for argument in arguments) == real


def test_control_groups_come_and_go_in_version_1(tmp_path: Path) -> None:
    for controller in ("cpu", "memory"):
        (tmp_path / controller).mkdir()
        (tmp_path / controller / "cgroup.procs").touch()
    cgroups.create("tuneyard200/node-1", tmp_path)
    assert (tmp_path / "memory" / "tuneyard200" / "node-1").is_dir()
    cgroups.remove("tuneyard200", tmp_path)
    assert sorted(path.name for path in tmp_path.glob("*/*")) == ["cgroup.procs", "cgroup.procs"]


def test_a_control_group_in_use_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "PATIENCE", 0.1)
    (tmp_path / "cgroup.controllers").write_text("")
    (tmp_path / "tuneyard200").mkdir()
    (tmp_path / "tuneyard200" / "busy").touch()  # what no rmdir takes away
    with pytest.raises(ClusterError, match="tuneyard200 is still in use"):
        cgroups.remove("tuneyard200", tmp_path)


def test_what_is_missing_is_named_by_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.shutil, "which", lambda name: None if name in {"runc", "nft", "apt-get"} else "/bin/x")
    monkeypatch.setattr(machine, "CNI", ("/nonexistent",))
    assert machine.missing() == ["containernetworking-plugins", "nftables", "runc"]
    with pytest.raises(ClusterError, match="containernetworking-plugins, nftables, runc"):
        machine.install(machine.missing())


@pytest.mark.parametrize(("platform", "uid", "said"), [("darwin", 0, "Linux"), ("linux", 1000, "root")])
def test_no_engine_and_no_real_nodes_is_one_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    platform: str,
    uid: int,
    said: str,
) -> None:
    monkeypatch.setattr(local, "docker_answers", lambda: False)
    monkeypatch.setattr(machine.sys, "platform", platform)
    monkeypatch.setattr(machine.os, "geteuid", lambda: uid)
    assert main(["tuneyard", "--directory", str(tmp_path / "cluster")]) == 1
    error = capsys.readouterr().err
    assert said in error
    assert "Docker engine" in error
    assert "make cluster-fake" in error


def test_a_folder_that_nodes_cannot_see_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "obstacle", lambda: None)
    with pytest.raises(ClusterError, match="/var/lib/clusters/one: they have their own"):
        machine.ensure(Path("/var/lib/clusters/one"))


def test_kind_gets_its_nodes_images_and_the_chart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    monkeypatch.setattr(local, "docker_answers", lambda: True)
    monkeypatch.setattr(local, "run", lambda *words, **_: ran.append(" ".join(map(str, words))) or "sha256:1")
    monkeypatch.setattr(tools, "ensure", lambda *_: None)
    monkeypatch.setattr(cluster.Cluster, "kubectl", lambda *_, **__: None)
    directory = tmp_path / "cluster"
    local.up(directory, count=2, gpus=0)
    kinds = json.loads((directory / "kind.json").read_text())
    assert [node["role"] for node in kinds["nodes"]] == ["control-plane", "worker"]
    said = "\n".join(ran)
    assert said.count("kind create cluster") == 1
    assert said.count("kind load docker-image") == 2
    assert "docker build" in said
    assert "--target examples" in said
    assert "helm --kubeconfig" in ran[-1]
    local.up(directory, count=2, gpus=0)
    assert "\n".join(ran).count("kind create cluster") == 1, "what is up is upgraded"
    assert main(["up", "--directory", str(directory)]) == 1, "what runs containers is not thrown away for fake nodes"
    local.load(directory, tmp_path / "image.tar")
    assert "kind load image-archive" in ran[-1]
    local.down(directory)
    assert "kind delete cluster --name tuneyard" in ran[-1]
    assert not directory.exists()


def test_a_fake_cluster_is_not_taken_for_one_that_runs_containers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "docker_answers", lambda: False)
    monkeypatch.setattr(machine, "obstacle", lambda: None)
    with pytest.raises(ClusterError, match="make cluster-down"):
        local.up(tmp_path, count=1, gpus=0)
