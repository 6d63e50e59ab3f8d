"""What the components of a control plane are started with."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from devcluster.nodes import DNS
from devcluster.pki import Credentials

KWOK: Final = Path(__file__).resolve().parents[1] / "kwok"
ISSUER: Final = "https://kubernetes.default.svc.cluster.local"
SYSTEM_NAMESPACE: Final = "tuneyard-system"
AUDIT_LOG: Final = "audit.log"
KUBELET_CLIENT: Final = "kube-apiserver-kubelet-client"
AUDIT: Final = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "Metadata", "userGroups": [f"system:serviceaccounts:{SYSTEM_NAMESPACE}"]},
        {"level": "None"},
    ],
}
"""What Tuneyard's own service accounts ask for, as the API server saw and answered it."""


@dataclass(frozen=True, kw_only=True)
class Control:
    """A control plane to be started.

    Attributes:
        directory: The cluster's folder.
        address: Where the API server listens, and nowhere else.
        port: Its port.
        credentials: The cluster's key material.
        kubeconfig: Path of the administrator's kubeconfig.
        real: Whether there are real nodes.
    """

    directory: Path
    address: str
    port: int
    credentials: Credentials
    kubeconfig: Path
    real: bool

    @property
    def server(self) -> str:
        """The API server's URL."""
        return f"https://{self.address}:{self.port}"

    def etcd(self) -> list[str]:
        """Its arguments."""
        client, peer = f"unix://{self.directory}/etcd.sock", f"unix://{self.directory}/peer.sock"
        return [
            f"--data-dir={self.directory}/etcd",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
            "--quota-backend-bytes=8589934592",
            "--log-level=warn",
        ]

    def apiserver(self) -> list[str]:
        """Its arguments."""
        keys = self.credentials
        return [
            f"--etcd-servers=unix://{self.directory}/etcd.sock",
            f"--bind-address={self.address}",
            f"--secure-port={self.port}",
            f"--tls-cert-file={keys.server_certificate}",
            f"--tls-private-key-file={keys.server_key}",
            f"--service-account-issuer={ISSUER}",
            f"--service-account-jwks-uri={self.server}/openid/v1/jwks",
            f"--service-account-key-file={keys.account_public_key}",
            f"--service-account-signing-key-file={keys.account_key}",
            "--service-cluster-ip-range=10.96.0.0/16",
            f"--token-auth-file={keys.tokens}",
            "--authorization-mode=Node,RBAC",
            "--allow-privileged=true",
            f"--audit-policy-file={self.directory}/audit.yaml",
            f"--audit-log-path={self.directory}/{AUDIT_LOG}",
            "--audit-log-maxsize=100",
            "--audit-log-maxbackup=1",
            *(self._for_kubelets() if self.real else ()),
        ]

    def _for_kubelets(self) -> list[str]:
        certificate, key = self.credentials.client(KUBELET_CLIENT, KUBELET_CLIENT)
        ca = self.credentials.ca_certificate
        return [
            f"--client-ca-file={ca}",
            "--enable-admission-plugins=NodeRestriction",
            "--enable-aggregator-routing=true",  # this machine knows the way to pods, and none to services
            f"--kubelet-certificate-authority={ca}",
            f"--kubelet-client-certificate={certificate}",
            f"--kubelet-client-key={key}",
            "--kubelet-preferred-address-types=InternalIP",
            "--default-not-ready-toleration-seconds=30",
            "--default-unreachable-toleration-seconds=30",
        ]

    def controller_manager(self) -> list[str]:
        """Its arguments: limits raised, since at the stock 20 requests a second it manages 3 Jobs a second."""
        return [
            f"--kubeconfig={self.kubeconfig}",
            f"--service-account-private-key-file={self.credentials.account_key}",
            f"--root-ca-file={self.credentials.ca_certificate}",
            "--use-service-account-credentials",
            "--leader-elect=false",
            "--secure-port=0",
            "--kube-api-qps=1000",
            "--kube-api-burst=2000",
            "--concurrent-job-syncs=20",
            # a busy machine renews leases late: fake nodes fail only on purpose
            f"--node-monitor-grace-period={'40s' if self.real else '5h'}",
        ]

    def scheduler(self) -> list[str]:
        """Its arguments."""
        return [f"--config={self.directory}/scheduler.yaml", "--secure-port=0"]

    def scheduler_configuration(self) -> dict[str, Any]:
        """What its arguments name."""
        return {
            "apiVersion": "kubescheduler.config.k8s.io/v1",
            "kind": "KubeSchedulerConfiguration",
            "clientConnection": {"kubeconfig": str(self.kubeconfig), "qps": 1000, "burst": 2000},
            "leaderElection": {"leaderElect": False},
        }

    def kwok(self) -> list[str]:
        """Its arguments."""
        files = [f"--config={KWOK / name}" for name in ("config.yaml", "stages.yaml")]
        return [f"--kubeconfig={self.kubeconfig}", *files]


def fake_node(index: int) -> dict[str, Any]:
    """A node that kwok plays."""
    name = f"gpu-{index}"
    labels = {
        "kubernetes.io/hostname": name,
        "kubernetes.io/arch": "amd64",
        "kubernetes.io/os": "linux",
        "nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3",
        "nvidia.com/gpu.memory": "81559",
    }
    metadata = {"name": name, "annotations": {"kwok.x-k8s.io/node": "fake"}, "labels": labels}
    return {"apiVersion": "v1", "kind": "Node", "metadata": metadata}


def corefile(address: str, port: int, kubeconfig: Path) -> str:
    """The configuration of the DNS: names of the cluster, and no others, since no way leads out of it."""
    return f"""\
cluster.local:{port} in-addr.arpa:{port} {{
    bind {address}
    errors
    kubernetes cluster.local in-addr.arpa {{
        kubeconfig {kubeconfig} devcluster
        ttl 5
    }}
}}
.:{port} {{
    bind {address}
    template ANY ANY {{
        rcode NXDOMAIN
    }}
}}
"""


def dns_objects(address: str, port: int) -> list[dict[str, Any]]:
    """The service that pods ask for names; it leads to a process beside the API server.

    So the DNS takes no image, is there before the first node, and survives the loss of any.
    """
    ports = [{"name": name.lower(), "protocol": name, "port": port} for name in ("UDP", "TCP")]
    service = {"clusterIP": DNS, "ports": [entry | {"port": 53, "targetPort": port} for entry in ports]}
    labels = {"kubernetes.io/service-name": "kube-dns", "endpointslice.kubernetes.io/managed-by": "devcluster"}
    here = {"addresses": [address], "conditions": {"ready": True}}
    return [
        _object("v1", "Service", "kube-dns", namespace="kube-system", spec=service),
        _object(
            "discovery.k8s.io/v1",
            "EndpointSlice",
            "kube-dns",
            namespace="kube-system",
            labels=labels,
            addressType="IPv4",
            endpoints=[here],
            ports=ports,
        ),
    ]


def access_objects(dns_user: str) -> list[dict[str, Any]]:
    """What the API server may ask of kubelets, and the DNS of the API server."""
    watched = [("", ["endpoints", "services", "pods", "namespaces"]), ("discovery.k8s.io", ["endpointslices"])]
    rules = [{"apiGroups": [group], "resources": names, "verbs": ["list", "watch"]} for group, names in watched]
    rbac = "rbac.authorization.k8s.io/v1"
    return [
        _object(rbac, "ClusterRole", dns_user, rules=rules),
        _binding(dns_user, dns_user),
        _binding(KUBELET_CLIENT, "system:kubelet-api-admin"),
    ]


def _binding(user: str, role: str) -> dict[str, Any]:
    group = "rbac.authorization.k8s.io"
    return _object(
        f"{group}/v1",
        "ClusterRoleBinding",
        user,
        roleRef={"apiGroup": group, "kind": "ClusterRole", "name": role},
        subjects=[{"apiGroup": group, "kind": "User", "name": user}],
    )


def _object(
    api: str, kind: str, name: str, *, namespace: str = "", labels: Mapping[str, str] | None = None, **rest: Any
) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name, "labels": dict(labels or {})} | (
        {"namespace": namespace} if namespace else {}
    )
    return {"apiVersion": api, "kind": kind, "metadata": metadata, **rest}
