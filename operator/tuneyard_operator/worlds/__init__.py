"""The worlds that the engine acts on: Kubernetes, this machine, and a simulation."""
