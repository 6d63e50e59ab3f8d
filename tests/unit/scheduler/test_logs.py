"""What lines look like, and what they say that they are about."""

import asyncio
import json
import logging
import re

import pytest

from tuneyard_scheduler import logs


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_each_line_is_an_object_that_names_its_study(capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup("info", "json")
    logger = logging.getLogger("tuneyard_test")
    with logs.about(namespace="team", study="digits"):
        logger.info("study %s: %s", "digits", "goes")
        with logs.about(trial="digits-3"):
            logger.warning('it said "no"\nand ended')
    logger.debug("not at this level")
    logger.info("alone")
    first, second, third = lines(capsys)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+\+00:00", str(first.pop("time")))
    subject = {"namespace": "team", "study": "digits"}
    assert first == {"level": "INFO", "logger": "tuneyard_test", "message": "study digits: goes", **subject}
    assert (second["trial"], second["study"], second["message"]) == ("digits-3", "digits", 'it said "no"\nand ended')
    assert not {"trial", "study", "namespace"} & third.keys()


def test_a_traceback_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup("info", "json")
    try:
        int("broken")
    except ValueError:
        logging.getLogger("tuneyard_test").exception("planning failed")
    [line] = lines(capsys)
    assert isinstance(line["error"], list)
    assert line["error"][-1] == "ValueError: invalid literal for int() with base 10: 'broken'"


async def test_tasks_are_about_what_started_them(capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup("info", "json")

    async def work() -> None:
        await asyncio.sleep(0)
        logging.getLogger("tuneyard_test").info("done")

    with logs.about(study="a"):
        task = asyncio.create_task(work())
    with logs.about(study="b"):
        await task
    assert [line["study"] for line in lines(capsys)] == ["a"]


def test_people_get_text(capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup("warning", "text")
    logging.getLogger("tuneyard_test").info("no")
    with logs.about(study="digits"):
        logging.getLogger("tuneyard_test").warning("yes")
    assert re.fullmatch(r"\S+ \S+ WARNING tuneyard_test: yes\n", capsys.readouterr().err)
