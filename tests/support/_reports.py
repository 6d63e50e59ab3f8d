"""Reporting for a pod that runs no program: the token that it would have, and a post to the operator."""

import json
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from _studies import Studies

from devcluster.stack import Stack


def token(studies: Studies, pod: dict[str, Any], audience: str = "tuneyard") -> str:
    """What the kubelet would mount into the pod."""
    bound = ["--bound-object-kind=Pod", f"--bound-object-name={pod['metadata']['name']}"]
    bound.append(f"--bound-object-uid={pod['metadata']['uid']}")
    return studies.kubectl("create", "token", "default", f"--audience={audience}", *bound).strip()


def post(stack: Stack, bearer: str | None, body: object) -> tuple[int, dict[str, Any]]:
    url = f"http://127.0.0.1:{stack.report_ports['operator']}/v1/reports"
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {bearer}"} if bearer else {})
    try:
        with urlopen(Request(url, json.dumps(body).encode(), headers)) as answer:
            return answer.status, json.load(answer)
    except HTTPError as error:
        with error:
            return error.code, json.load(error)
