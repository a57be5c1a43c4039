"""The end of a study says whether utterances failed."""

import pytest

from s2txai.errors import UserError
from s2txai.steps.check_failures import check_failures

HEADER = "dataset\tmodel\ttask\tutterance\tstep\taudio\tmessage\n"


@pytest.fixture
def tables(tmp_path):
    """Return the tables of two runs, without a failure."""
    paths = [tmp_path / "one.tsv", tmp_path / "two.tsv"]
    for path in paths:
        path.write_text(HEADER)
    return paths


def test_a_study_without_failures_ends_well(tables):
    check_failures(tables)


def test_failures_are_counted_and_the_first_is_quoted(tables):
    # An id may look like a missing value.
    row = "talks\twhisper\tasr-en\tNA\tdecode\ta.wav\tis silent\n"
    tables[1].write_text(HEADER + row + row.replace("NA", "b"))
    with pytest.raises(UserError) as caught:
        check_failures(tables)
    assert str(caught.value) == (
        "Not every utterance could be processed: 2 failed, listed in the report and in "
        f"{tables[1]}; docs/workflow.md says how to go on. The first is 'NA' in decode: is silent"
    )
