import pytest

from lwddpm.addresses import has_password, is_loopback, public, without_passwords


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("postgresql://ada:secret@db:5432/mlflow", "postgresql://db:5432/mlflow"),
        ("http://ada@tracking:5000/path?a=b", "http://tracking:5000/path?a=b"),
        ("http://ada:se@cret@tracking:5000", "http://tracking:5000"),
        ("sqlite:////home/ada/mlflow.db", "sqlite:////home/ada/mlflow.db"),
        ("s3://bucket/folder", "s3://bucket/folder"),
    ],
)
def test_no_user_and_no_password_is_shown(uri: str, shown: str) -> None:
    assert public(uri) == shown
    assert has_password(uri) == ("secret" in uri or "cret" in uri)


def test_passwords_are_taken_out_of_any_text() -> None:
    command = (
        "lwddpm run a.yaml --set tracking.uri=http://ada:secret@tracking:5000 --set search.storage=sqlite:///a@b.db"
    )
    assert without_passwords(command) == command.replace("ada:secret@", "")
    assert not has_password("lwddpm run demo")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3", "::1"])
def test_only_this_machine_reaches_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "localhost.example.org", "", "head"])
def test_others_reach_the_rest(host: str) -> None:
    assert not is_loopback(host)
