"""The command line's grammar. Standard library only, and quick to import."""

from __future__ import annotations

import argparse
import json
import re
import sys
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

_EXAMPLES = """\
examples:
  tuneyard run digits.yaml                 search, on this machine; the same again goes on where it was
  tuneyard get studies                     what there is
  tuneyard get trials digits -o wide       what became of each configuration
  tuneyard best digits -o env              the best one, as environment variables
  tuneyard pareto digits                   with several objectives: those that no other one beats
  tuneyard schedule digits                 with pbt: what the best trial was trained with, one after the other
  tuneyard importances digits              which parameters matter
  tuneyard logs digits/7 -f                what a trial prints
  tuneyard queue                           who waits for GPUs, for what and until when
  tuneyard stop digits                     start no further trials (tuneyard run goes on)
  tuneyard delete digits                   end it and forget it

In a cluster, `tuneyard operator`, `tuneyard scheduler` and `tuneyard strategy` are the processes behind kubectl;
`tuneyard verify` shows whether they work.
"""
_ORIGIN = re.compile(r"\*|https?://(\*\.)?([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")
_CHOICE = re.compile(r"argument .*: invalid choice: '(.*?)' \(choose from (.*)\)")


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence, with the nearest right word."""

    def error(self, message: str) -> NoReturn:
        found = _CHOICE.match(message)
        if found:
            given, known = found.group(1), re.findall(r"[\w-]+", found.group(2))
            close = get_close_matches(given, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"choose one of {', '.join(known)}"
            message = f"there is no '{given}' here; {hint}"
        sys.stderr.write(f"tuneyard: {message} (see {self.prog} --help)\n")
        raise SystemExit(2)


def create() -> argparse.ArgumentParser:
    """The parser. Its result names the function to call, as module:function, in `command`."""
    parser = _Parser(
        prog="tuneyard",
        description="Find good hyperparameters: describe the search in a Study, run it here or in a cluster.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=_Parser)
    here = _Parser(add_help=False)
    here.add_argument(
        "--home",
        type=Path,
        metavar="DIR",
        help="where studies are kept (default: $TUNEYARD_HOME, or tuneyard in ~/.local/share)",
    )
    _add_run(commands, here)
    _add_get(commands, here)
    anywhere = _Parser(add_help=False, parents=[here])
    anywhere.add_argument("-n", "--namespace", metavar="NAME", help="of a study in a cluster: its namespace")
    anywhere.add_argument(
        "--kubeconfig", metavar="FILE", help="of a study in a cluster: the cluster (default: as kubectl finds it)"
    )
    _add_best(commands, anywhere)
    _add_pareto(commands, anywhere)
    _add_schedule(commands, anywhere)
    _add_importances(commands, anywhere)
    _add_logs(commands, here)
    _add_queue(commands, here)
    for name, command, text in (
        ("stop", "manage:stop", "start no further trials of a study; those that run go on to their end"),
        ("delete", "manage:delete", "end a study's trials and remove all of it: results, logs and records"),
    ):
        managed = _command(commands, name, command, text, here)
        managed.add_argument("study", metavar="STUDY", help="its name, for example digits")
    _add_operator(commands)
    _add_scheduler(commands)
    _add_strategy(commands)
    _add_verify(commands)
    return parser


Commands = argparse._SubParsersAction


def _command(
    commands: Commands[_Parser], name: str, command: str, text: str, *parents: _Parser
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".", parents=parents)
    parser.set_defaults(command=f"tuneyard.cli.{command}")
    return parser


def _add_run(commands: Commands[_Parser], here: _Parser) -> None:
    run = _command(commands, "run", "run:run", "run a study on this machine, or go on with it", here)
    run.add_argument("file", type=Path, metavar="FILE", help="the study's manifest, for example digits.yaml")
    run.add_argument("--no-table", action="store_true", help="print a line for each event instead of a live table")
    run.add_argument("--cpu", action="store_true", help="run without GPUs, whatever spec.gpu says")


def _add_get(commands: Commands[_Parser], here: _Parser) -> None:
    get = _command(commands, "get", "show:get", "list studies, or the trials of a study", here)
    get.add_argument("kind", choices=["studies", "study", "trials", "trial"], metavar="studies|trials")
    get.add_argument("study", nargs="?", metavar="STUDY", help="only this one (default: all)")
    get.add_argument("-o", "--output", choices=["table", "wide", "yaml", "json"], default="table", help="how to print")


def _add_best(commands: Commands[_Parser], anywhere: _Parser) -> None:
    best = _command(commands, "best", "show:best", "print a study's best configuration and its metrics", anywhere)
    best.add_argument("study", metavar="STUDY", help="its name, for example digits")
    best.add_argument(
        "-o",
        "--output",
        choices=["table", "yaml", "json", "env"],
        default="table",
        help='how to print; env is for a shell: set -a; eval "$(tuneyard best digits -o env)"',
    )
    best.add_argument(
        "--recommended", action="store_true",
        help="the trial of which a model expects most: where results are noisy the best observed one mostly had luck",
    )  # fmt: skip


def _add_importances(commands: Commands[_Parser], anywhere: _Parser) -> None:
    text = "print how much each parameter of a study matters, by a model of its trials"
    importances = _command(commands, "importances", "importances:importances", text, anywhere)
    importances.add_argument("study", metavar="STUDY", help="its name, for example digits")
    importances.add_argument("--metric", metavar="NAME", help="for this metric (default: the one to optimise)")
    importances.add_argument("--trials", action="store_true", help="print what is to be expected of each trial instead")
    importances.add_argument("-o", "--output", choices=["table", "json"], default="table", help="how to print")


def _add_pareto(commands: Commands[_Parser], anywhere: _Parser) -> None:
    text = "print the trials that no other one beats, with several objectives"
    pareto = _command(commands, "pareto", "pareto:pareto", text, anywhere)
    pareto.add_argument("study", metavar="STUDY", help="its name, for example digits")
    pareto.add_argument("-o", "--output", choices=["table", "yaml", "json"], default="table", help="how to print")


def _add_schedule(commands: Commands[_Parser], anywhere: _Parser) -> None:
    text = "print with which configurations a trial was trained, one after the other"
    schedule = _command(commands, "schedule", "schedule:schedule", text, anywhere)
    schedule.add_argument("trial", metavar="STUDY[/INDEX]", help="the trial, for example digits/7 (default: the best)")
    schedule.add_argument("-o", "--output", choices=["table", "yaml", "json"], default="table", help="how to print")


def _add_logs(commands: Commands[_Parser], here: _Parser) -> None:
    logs = _command(commands, "logs", "logs:logs", "print what a trial's program printed", here)
    logs.add_argument("trial", metavar="STUDY/INDEX", help="the trial, for example digits/7")
    logs.add_argument("--attempt", type=int, metavar="N", help="this attempt, from 0 (default: the latest)")
    logs.add_argument("-f", "--follow", action="store_true", help="go on printing until the program ends")


def _add_queue(commands: Commands[_Parser], here: _Parser) -> None:
    queue = _command(
        commands, "queue", "queue:queue", "show who uses and who waits for GPUs, for what and until when", here
    )
    queue.add_argument(
        "--here", action="store_true", help="of this machine (default: of the cluster, if kubectl would find one)"
    )
    queue.add_argument("--kubeconfig", metavar="FILE", help="the cluster (default: as kubectl finds it)")
    queue.add_argument("--namespace", metavar="NAME", help="studies of this namespace only (default: all)")
    queue.add_argument("-o", "--output", choices=["table", "json"], default="table", help="how to print")


def _add_operator(commands: Commands[_Parser]) -> None:
    operator = _command(commands, "operator", "services:operator", "run the operator of a cluster")
    _add_cluster(operator)
    operator.add_argument("--strategy-url", metavar="URL", help="the strategy service (default: strategies run inside)")
    operator.add_argument("--strategy-token-file", type=Path, metavar="FILE", help="the token for --strategy-url")
    operator.add_argument(
        "--strategy-service", type=origin, action="append", default=[], metavar="ORIGIN",
        help="a strategy service of users' own that studies may name, such as http://optimizer.team-a.svc:8080; "
        "*.team-a.svc for all hosts there, * for any; may be repeated (default: none)",
    )  # fmt: skip
    operator.add_argument(
        "--listen", type=address, default=("0.0.0.0", 8080), metavar="HOST:PORT",  # noqa: S104 - pods report to it
        help="where metrics are taken in (default: 0.0.0.0:8080)",
    )  # fmt: skip
    operator.add_argument("--report-url", metavar="URL", help="where pods reach that (default: guessed)")
    operator.add_argument(
        "--keep-jobs", type=duration, default=900.0, metavar="TIME",
        help="how long the Jobs of ended trials are kept, for their logs (default: 15m)",
    )  # fmt: skip
    operator.add_argument(
        "--gpu-runtime-class", metavar="NAME",
        help="the RuntimeClass of pods with NVIDIA GPUs whose template names none (default: the nodes' own)",
    )  # fmt: skip


def _add_scheduler(commands: Commands[_Parser]) -> None:
    scheduler = _command(commands, "scheduler", "services:scheduler", "run the scheduler of a cluster")
    _add_cluster(scheduler)
    scheduler.add_argument(
        "--device-class", action="append", default=[], metavar="NAME",
        help="the DeviceClass to use, where several select a driver's GPUs; may be given more than once "
        "(default: that of the driver's name, else the first)",
    )  # fmt: skip
    scheduler.add_argument(
        "--gpu-sharing", choices=["reservation", "none"], default="reservation", metavar="HOW",
        help="how parts of whole NVIDIA GPUs are given: by pods that hold them (reservation), or not at all (none); "
        "default: reservation",
    )  # fmt: skip
    scheduler.add_argument(
        "--reservation-namespace", metavar="NAME", help="where those pods are (default: where the scheduler is)"
    )
    scheduler.add_argument(
        "--reservation-pod", type=pod_template, metavar="JSON",
        help="what they are made from: a pod with one container, its image and settings (default: Tuneyard's image)",
    )  # fmt: skip


def _add_strategy(commands: Commands[_Parser]) -> None:
    strategy = _command(commands, "strategy", "services:strategy", "run the strategy service of a cluster")
    strategy.add_argument(
        "--listen", type=address, default=("127.0.0.1", 8090), metavar="HOST:PORT",
        help="where to answer (default: 127.0.0.1:8090)",
    )  # fmt: skip
    strategy.add_argument("--token-file", type=Path, required=True, metavar="FILE", help="the token for callers")
    strategy.add_argument(
        "--create-token", action="store_true", help="write a random token into that file unless it exists"
    )
    _add_logging(strategy)


def _add_verify(commands: Commands[_Parser]) -> None:
    verify = _command(
        commands, "verify", "verify:verify", "run a study in a cluster, see that it completes, and remove it"
    )
    verify.add_argument("file", type=Path, metavar="FILE", help="the study's manifest; a small one will do")
    verify.add_argument("--kubeconfig", metavar="FILE", help="the cluster (default: as kubectl finds it)")
    verify.add_argument("--namespace", metavar="NAME", help="where to run it (default: the manifest's, or kubectl's)")
    verify.add_argument(
        "--timeout", type=duration, default=300.0, metavar="TIME", help="how long it may take (default: 5m)"
    )


def _add_cluster(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--kubeconfig", metavar="FILE", help="the cluster (default: as kubectl finds it)")
    parser.add_argument("--namespace", metavar="NAME", help="studies of this namespace only (default: all)")
    parser.add_argument(
        "--lease", metavar="NAME",
        help="work only while holding this Lease, so that several replicas can run (default: no lease, one replica)",
    )  # fmt: skip
    parser.add_argument(
        "--serve", type=address, metavar="HOST:PORT",
        help="where to answer probes and give metrics over HTTPS, for example 0.0.0.0:8443 (default: nowhere)",
    )  # fmt: skip
    _add_logging(parser)


def _add_logging(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--log-format", choices=["text", "json"], default="text", metavar="FORMAT",
        help="text or json, one object a line (default: text)",
    )  # fmt: skip
    parser.add_argument(
        "--log-level", choices=["debug", "info", "warning", "error"], default="info", metavar="LEVEL",
        help="how much to say: debug, info, warning or error (default: info)",
    )  # fmt: skip


def address(text: str) -> tuple[str, int]:
    """HOST:PORT as a pair."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"'{text}' is no address; write HOST:PORT, for example 0.0.0.0:8080")
    return host.strip("[]"), int(port)


def pod_template(text: str) -> dict[str, Any]:
    """A pod template with one container."""
    try:
        template = json.loads(text)
        [container] = template["spec"]["containers"]
        image = container["image"]
    except (ValueError, KeyError, TypeError):
        image = None
    if not isinstance(image, str):
        said = 'write JSON such as {"spec": {"containers": [{"image": "tuneyard/tuneyard:0.1.0"}]}}, with one container'
        raise argparse.ArgumentTypeError(f"that is no pod template; {said}")
    return dict(template)


def origin(text: str) -> str:
    """A scheme, a host and a port, or *, as it is."""
    if not _ORIGIN.fullmatch(text):
        said = "write scheme, host and port, such as http://optimizer.team-a.svc:8080 or http://*.team-a.svc, or *"
        raise argparse.ArgumentTypeError(f"'{text}' is no origin; {said}")
    return text


def duration(text: str) -> float:
    """Seconds in a text such as 15m."""
    from tuneyard_api.common import seconds  # noqa: PLC0415 - pydantic; only for who sets it

    try:
        return float(seconds(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
