"""The queueing scheduler: state in, cycle, decisions out; one policy a file."""
