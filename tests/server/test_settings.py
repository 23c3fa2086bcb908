import pytest

from napari_medreasoner.core.errors import SettingsError
from napari_medreasoner.server.settings import ENVIRONMENT_VARIABLE, Settings, read_token

TOKEN = "0123456789abcdef"


def token_file(tmp_path, text=TOKEN, mode=0o600):
    path = tmp_path / "token"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_a_private_file_gives_the_token_without_its_line_end(tmp_path):
    assert read_token(token_file(tmp_path, TOKEN + "\n")) == TOKEN


def test_without_a_file_the_environment_gives_the_token(monkeypatch):
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, TOKEN)
    assert read_token(None) == TOKEN
    monkeypatch.delenv(ENVIRONMENT_VARIABLE)
    with pytest.raises(SettingsError, match=ENVIRONMENT_VARIABLE):
        read_token(None)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666, 0o601])
def test_a_file_open_to_others_is_refused_with_the_command_that_closes_it(tmp_path, mode):
    path = token_file(tmp_path, mode=mode)
    with pytest.raises(SettingsError, match=f"chmod 600 {path}"):
        read_token(path)


@pytest.mark.parametrize("text", ["", " \n", "schlüssel-schlüssel"])
def test_an_empty_or_unreadable_file_is_refused(tmp_path, text):
    with pytest.raises(SettingsError):
        read_token(token_file(tmp_path, text))
    with pytest.raises(SettingsError):
        read_token(tmp_path / "missing")


@pytest.mark.parametrize("token", ["", "short", "0123456789 abcdef", "0123456789abcde\n", "ü" * 20])
def test_a_token_that_is_short_or_cannot_travel_is_refused(token):
    with pytest.raises(SettingsError):
        Settings(token=token)


def test_the_token_is_not_shown():
    assert TOKEN not in repr(Settings(token=TOKEN))
