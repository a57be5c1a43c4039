import pytest

from s2txai.study.redact import without_secrets


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("GET https://me:word@host/simple failed", "GET https://****@host/simple failed"),
        ("GET https://token@host:8080/x", "GET https://****@host:8080/x"),
        ("GET https://me:wo/r@d@host/x", "GET https://****@host/x"),
        ("'http://a:b@c' and 'http://d:e@f'", "'http://****@c' and 'http://****@f'"),
        ("GET https://host/simple failed", "GET https://host/simple failed"),
        ("write to me@host", "write to me@host"),
    ],
)
def test_credentials_of_addresses(text, shown):
    assert without_secrets(text) == shown


def test_passwords_of_the_environment_and_their_pieces(monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "https://user:long/word@host/simple")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "https://pypi-1234@host/simple https://x:yz@host")
    assert without_secrets("port 'long' of long/word, pypi-1234") == "port '****' of ****, ****"
    # Too short to be told from words, and a name is no secret.
    assert without_secrets("user: yz") == "user: yz"


def test_a_token():
    assert without_secrets("Bearer hf_x", "hf_x") == "Bearer ****"
    assert without_secrets("Bearer hf_x", None) == "Bearer hf_x"
