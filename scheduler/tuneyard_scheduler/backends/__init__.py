"""Ways to hand GPUs to pods, one a file: `capacity` of a node, and `render` of a placement into a pod."""
