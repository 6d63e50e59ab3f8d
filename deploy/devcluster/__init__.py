"""A real Kubernetes for tests and for trying things out, with fake nodes, real nodes or both.

etcd, kube-apiserver, kube-controller-manager and kube-scheduler are the real ones, built from Go modules
(`devcluster.tools`). Fake nodes (gpu-0, gpu-1, ...; 8 GPUs each) need no root: kwok plays their kubelets, as scripted
by pod annotations (`deploy/kwok/stages.yaml`). Real nodes (node-1, node-2, ...) run real containers with containerd,
kubelet and kube-proxy, each in namespaces of its own, with a DNS; they need root on Linux and the packages that
`devcluster.machine` names. Their GPUs, if any, are fake too: a device plugin offers the kubelet what is not there.
Any number of clusters can run side by side, and end with the process that began them.

In a test or a benchmark:

    from devcluster.cluster import running_cluster

    with running_cluster(nodes=4) as cluster:  # fake nodes
        cluster.kubectl("get", "nodes")

    with running_cluster(nodes=0, real=2, gpus=2) as cluster:  # real nodes of 2 fake GPUs
        cluster.load_image(Path("image.tar"))  # an OCI archive, into all real nodes that run
        cluster.kill_node("node-2")  # SIGKILL to all of it; the API server says NotReady 40 s later
        cluster.start_node("node-2")  # returns when it is ready; its images are still there

On the command line: `python -m devcluster up [--nodes 4] [--real 0] [--gpus 0]` starts a bare cluster, `tuneyard
[--nodes 1] [--gpus 2]` one that has Tuneyard in it (`devcluster.local`), `down` removes either.
"""
