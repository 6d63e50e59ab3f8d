"""A real Kubernetes control plane with fake GPU nodes, for tests and for trying things out.

etcd, kube-apiserver, kube-controller-manager and kube-scheduler are the real ones, built from Go modules
(`devcluster.tools`); only the nodes are fake: kwok plays their kubelets, as scripted by pod annotations
(`deploy/kwok/stages.yaml`). Nothing needs root, and any number of clusters can run side by side.

In a test or a benchmark:

    from devcluster.cluster import running_cluster

    with running_cluster(nodes=4) as cluster:
        cluster.kubectl("get", "nodes")

On the command line: `python -m devcluster up`, and `down` when done.
"""
