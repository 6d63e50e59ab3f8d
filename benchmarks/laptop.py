"""What the engine costs on one machine: seconds to the first running trial, and its CPU beside that of its trials.

Runs examples/digits.yaml with an empty home. The reference is the trials' own CPU time: what training would cost if the
configurations were run by hand.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _figures import save, show

EXAMPLE = Path(__file__).parents[1] / "examples" / "digits.yaml"
TICKS = os.sysconf("SC_CLK_TCK")


def own_cpu(pid: int) -> float:
    """CPU seconds of a process without its children; 0 once it has ended: proc(5)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    with tempfile.TemporaryDirectory() as home:
        command = [str(Path(sys.executable).with_name("tuneyard")), "run", str(EXAMPLE), "--home", home, "--no-table"]
        begun, first, engine = time.monotonic(), 0.0, 0.0
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            if not first and any(Path(home).glob("studies/*/*/*/pid")):
                first = time.monotonic() - begun
            engine = max(engine, own_cpu(process.pid))
            time.sleep(0.02)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - begun
    assert status == 0, "the study did not complete"
    trials = usage.ru_utime + usage.ru_stime - engine
    show(
        f"{EXAMPLE.name} on this machine",
        ["first trial s", "whole study s", "engine CPU s", "trials' CPU s", "overhead"],
        [[first, seconds, engine, trials, f"{100 * engine / trials:.1f} %"]],
    )
    figures = {
        "first_trial_s": round(first, 2),
        "study_s": round(seconds, 1),
        "engine_cpu_s": round(engine, 2),
        "trials_cpu_s": round(trials, 2),
        "overhead_ratio": round(engine / trials, 4),
    }
    save("laptop", figures)


if __name__ == "__main__":
    main()
