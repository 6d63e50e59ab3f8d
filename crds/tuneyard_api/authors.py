"""Who may make studies and trials: who may create Jobs in the namespace, since that is what the operator then does.

Without this rule a role that allows studies alone would be a way to run any pod. The API server asks its authorizer
about the author, at the request that brings what the Jobs are made from; what the operator does later is in its name.
"""

from __future__ import annotations

JOB_FIELDS = ("template", "parameters", "initial", "gpu", "fidelity", "checkpoints")
"""The fields of a study's spec that its Jobs are made from. The others decide how many run, which, and when."""

NEW_JOBS = f"oldObject == null || {list(JOB_FIELDS)}.exists(f, dyn(object.spec)[?f] != dyn(oldObject.spec)[?f])"
"""Whether the request brings Jobs of another kind. Scaling, suspending or a finalizer's removal does not."""

MAY_CREATE_JOBS = "authorizer.group('batch').resource('jobs').namespace(request.namespace).check('create').allowed()"

REFUSAL = (
    "request.userInfo.username + ' may not create Jobs in namespace ' + request.namespace "
    "+ ', and trials run as Jobs; ask for a role that allows to create jobs.batch there, such as edit'"
)
"""CEL: what is said to an author who may not."""
