"""Plain data of an utterance."""

import numpy as np
import pytest

from s2txai.analysis.utterance import UtteranceData
from s2txai.errors import UserError

DATA = UtteranceData("u1", {"smh": np.zeros((2, 3)), "n_masks_smh": np.array(9)}, {"smh": {}})


def test_a_missing_array_is_named_beside_those_there_are():
    with pytest.raises(UserError, match=r"'u1' hold no array 'smx_avg2d', only n_masks_smh, smh:"):
        DATA["smx_avg2d"]


def test_maps_are_let_go_and_numbers_kept():
    rest = DATA.without_maps()
    assert list(rest.arrays) == ["n_masks_smh"]
    assert (rest.utterance, rest.parameters) == ("u1", {"smh": {}})
