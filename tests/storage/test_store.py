import hashlib
import os

import numpy as np
import pytest

from s2txai.hashing import fingerprint
from s2txai.storage.store import Store, link


def test_fingerprint_depends_on_content_only():
    facts = {"seed": 1, "p": 0.5, "levels": [2000, 3000], "hypothesis": "día"}
    assert fingerprint(**facts) == fingerprint(**dict(reversed(facts.items())))
    assert fingerprint(**facts) == fingerprint(**{**facts, "levels": (2000, 3000)})
    assert fingerprint(a=1) == hashlib.sha256(b'{"a":1}').hexdigest()


@pytest.mark.parametrize(
    "change", [{"seed": 2}, {"p": 0.1}, {"levels": [3000, 2000]}, {"new": None}]
)
def test_fingerprint_changes_with_every_fact(change):
    facts = {"seed": 1, "p": 0.5, "levels": [2000, 3000]}
    assert fingerprint(**facts) != fingerprint(**{**facts, **change})


@pytest.mark.parametrize("fact", [np.zeros(2), float("nan")])
def test_facts_without_json_form_are_refused(fact):
    with pytest.raises((TypeError, ValueError)):
        fingerprint(fact=fact)


def test_entries_do_not_collide(tmp_path):
    store = Store(tmp_path)
    keys = [(s, u, f) for s in ("smx", "smh") for u in ("u1", "u2") for f in ("0a", "0b")]
    paths = {store.path(*key) for key in keys}
    assert len(paths) == len(keys)
    assert all(path.is_relative_to(tmp_path) and path.suffix == ".npz" for path in paths)


@pytest.fixture
def entry(tmp_path):
    entry = Store(tmp_path / "cache").path("smx", "u1", "0a")
    entry.parent.mkdir(parents=True)
    entry.write_bytes(b"masks")
    return entry


def test_link_takes_no_space_and_makes_directories(entry, tmp_path):
    destination = tmp_path / "smx" / "0000" / "u1.npz"
    link(entry, destination)
    assert destination.samefile(entry)


def test_link_replaces_and_may_be_repeated(entry, tmp_path):
    destination = tmp_path / "u1.npz"
    destination.write_bytes(b"old")
    for _ in range(2):
        link(entry, destination)
        assert destination.samefile(entry)
    assert {path.name for path in tmp_path.iterdir()} == {"cache", "u1.npz"}


def test_link_copies_where_links_are_impossible(entry, tmp_path, monkeypatch):
    def no_links(*_args):
        raise OSError("Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    destination = tmp_path / "u1.npz"
    link(entry, destination)
    assert destination.read_bytes() == b"masks"
    assert not destination.samefile(entry)


def test_link_to_lost_entry_leaves_the_destination(tmp_path):
    destination = tmp_path / "u1.npz"
    destination.write_bytes(b"old")
    with pytest.raises(FileNotFoundError):
        link(tmp_path / "lost.npz", destination)
    assert destination.read_bytes() == b"old"
