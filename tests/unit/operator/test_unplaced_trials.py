"""Trials that wait for a node to be added: their study is not blocked, and they come back when they are told to."""

from typing import Any

import pytest

from tuneyard_api.trial import Outcome, Phase
