from __future__ import annotations

import pytest

from jaxmat.data.findings import Findings, some
from jaxmat.errors import UserError


def test_nothing_found_is_not_worth_a_word(caplog):
    Findings("t.json").tell()
    assert not caplog.records


def test_remarks_are_one_warning(caplog):
    Findings("t.json", remarks=["one\n  of two lines", "two"]).tell()
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage() == "t.json:\n- one\n    of two lines\n- two"


def test_a_refusal_comes_with_all_that_was_found(caplog):
    findings = Findings("t.json", refusals=["a", "b"], remarks=["c"])
    for end in (findings.stop_if_refused, findings.tell):
        with pytest.raises(UserError) as error:
            end()
        assert str(error.value) == "t.json cannot be used:\n- a\n- b\nAlso noticed:\n- c"
    assert not caplog.records


def test_some_ids():
    assert some(["a", "b"]) == "a, b"
    assert some(list("abcd")) == "a, b, c, ..."
