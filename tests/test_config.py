"""Every setting has a default, a variable and limits."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import pytest

from heterofed.config import PROGRESS_FORMS, UPLOADS, Settings
from heterofed.errors import ConfigError

EXAMPLES: dict[str, tuple[str, object]] = {
    "home": ("/tmp/parties", Path("/tmp/parties")),
    "bind": ("0.0.0.0:7000", "0.0.0.0:7000"),
    "advertise": ("host.example:7000", "host.example:7000"),
    "encryption": ("off", False),
    "gather_timeout_s": ("1.5", 1.5),
    "rejoin_timeout_s": ("0", 0.0),
    "notice_every_s": ("30", 30.0),
    "max_message_bytes": ("1048576", 1048576),
    "check_finite": ("no", False),
    "test_keep_bytes": ("0", 0),
    "threads": ("3", 3),
    "psi_max_ids": ("1000", 1000),
    "psi_key_bits": ("3072", 3072),
    "psi_protocol": ("ecdh", "ecdh"),
    "psi_pairwise": ("yes", True),
    "psi_workers": ("4", 4),
    "psi_engine": ("gmpy2", "gmpy2"),
    "progress": ("json", "json"),
    "plugins": ("my_hooks, more/hooks.py", ("my_hooks", "more/hooks.py")),
    "hooks": ("grad_norm,fedprox", ("grad_norm", "fedprox")),
    "trainer": ("mine", "mine"),
    "metrics": ("f1", ("f1",)),
    "tensorboard": ("1", True),
    "hub": ("http://hub.example:8080", "http://hub.example:8080"),
    "token": ("abc-123", "abc-123"),
    "hub_ca": ("/etc/ssl/hub.pem", "/etc/ssl/hub.pem"),
    "upload": ("all", "all"),
}
"""field -> (text of its variable, value)."""


def test_the_defaults_are_those_of_the_documentation() -> None:
    assert Settings() == Settings.from_env({})
    assert Settings() == Settings(
        home=Path.home() / ".heterofed",
        bind="127.0.0.1:0",
        advertise="",
        encryption=True,
        gather_timeout_s=600.0,
        rejoin_timeout_s=300.0,
        notice_every_s=5.0,
        max_message_bytes=2**30,
        check_finite=True,
        test_keep_bytes=64 * 2**20,
        threads=0,
        psi_max_ids=100_000_000,
        psi_key_bits=2048,
        psi_protocol="rsa",
        psi_pairwise=False,
        psi_workers=0,
        psi_engine="fastest",
        progress="auto",
        plugins=(),
        hooks=(),
        trainer="",
        metrics=(),
        tensorboard=False,
        hub="",
        token="",
        hub_ca="",
        upload="metrics",
    )


def test_the_examples_below_hold_every_setting() -> None:
    assert list(EXAMPLES) == [each.name for each in fields(Settings)]


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_setting_can_be_changed_by_its_variable_alone(name: str) -> None:
    text, value = EXAMPLES[name]

    settings = Settings.from_env({f"HETEROFED_{name.upper()}": text})

    assert getattr(settings, name) == value
    assert type(getattr(settings, name)) is type(getattr(Settings(), name))
    for other in EXAMPLES.keys() - {name}:
        assert getattr(settings, other) == getattr(Settings(), other)


def test_the_variables_of_the_process_are_read_where_no_others_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HETEROFED_REJOIN_TIMEOUT_S", "7")

    assert Settings.from_env().rejoin_timeout_s == 7.0


def test_an_empty_variable_is_as_none_at_all() -> None:
    assert Settings.from_env({f"HETEROFED_{name.upper()}": "" for name in EXAMPLES}) == Settings()


def test_other_variables_are_left_alone() -> None:
    assert Settings.from_env({"HETEROFED_DATA": "/data", "HOME": "/root", "BIND": "x"}) == Settings()


@pytest.mark.parametrize(
    ("variable", "text", "problem"),
    [
        ("GATHER_TIMEOUT_S", "soon", "HETEROFED_GATHER_TIMEOUT_S is 'soon'; expected a value like 600.0."),
        ("REJOIN_TIMEOUT_S", "10s", "HETEROFED_REJOIN_TIMEOUT_S is '10s'; expected a value like 300.0."),
        ("MAX_MESSAGE_BYTES", "1e9", "HETEROFED_MAX_MESSAGE_BYTES is '1e9'; expected a value like 1073741824."),
        ("PSI_KEY_BITS", "2048.0", "HETEROFED_PSI_KEY_BITS is '2048.0'; expected a value like 2048."),
    ],
)
def test_a_variable_of_the_wrong_form_is_named(variable: str, text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Settings.from_env({f"HETEROFED_{variable}": text})

    assert str(caught.value) == problem


@pytest.mark.parametrize("name", ["gather_timeout_s", "rejoin_timeout_s", "notice_every_s"])
def test_less_than_nothing_is_refused_by_either_door(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"{name} is -1; expected 0 or more\."):
        Settings(**{name: -1})  # type: ignore[arg-type]  # one of the numbers
    with pytest.raises(ConfigError, match=rf"{name} is -1.*; expected 0 or more\."):
        Settings.from_env({f"HETEROFED_{name.upper()}": "-1"})


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("max_message_bytes", 1000, "1048576 or more"),
        ("threads", -1, "0 or more"),
        ("test_keep_bytes", -1, "0 or more"),
        ("psi_max_ids", 0, "1 or more"),
        ("psi_key_bits", 1024, "a multiple of 8 from 2048 to 8192"),
        ("psi_key_bits", 2049, "a multiple of 8 from 2048 to 8192"),
    ],
)
def test_a_size_that_cannot_work_is_refused(name: str, value: int, expected: str) -> None:
    with pytest.raises(ConfigError, match=rf"{name} is {value}; expected {expected}\."):
        Settings(**{name: value})  # type: ignore[arg-type]  # one of the numbers


@pytest.mark.parametrize("name", ["gather_timeout_s", "rejoin_timeout_s", "notice_every_s"])
def test_a_time_that_is_no_number_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"{name} is nan; expected 0 or more\."):
        Settings.from_env({f"HETEROFED_{name.upper()}": "nan"})


def test_0_is_a_time() -> None:
    assert Settings(gather_timeout_s=0, rejoin_timeout_s=0, notice_every_s=0).rejoin_timeout_s == 0


@pytest.mark.parametrize("form", PROGRESS_FORMS)
def test_every_form_of_progress_can_be_set(form: str) -> None:
    assert Settings.from_env({"HETEROFED_PROGRESS": form}).progress == form


def test_an_unknown_form_of_progress_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError) as caught:
        Settings(progress="fancy")

    assert str(caught.value) == "progress is 'fancy'; expected one of auto, bar, plain, json, off."


@pytest.mark.parametrize("amount", UPLOADS)
def test_every_amount_of_upload_can_be_set(amount: str) -> None:
    assert Settings.from_env({"HETEROFED_UPLOAD": amount}).upload == amount


def test_an_unknown_amount_of_upload_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError) as caught:
        Settings(upload="models")

    assert str(caught.value) == "upload is 'models'; expected one of nothing, metrics, all."


def test_a_token_is_shown_neither_by_settings_nor_by_the_error_about_it() -> None:
    assert "secret" not in repr(Settings(token="my-secret"))  # noqa: S106 - of nobody
    for wrong in ("my secret", "my\nsecret", "my-secret-é"):
        with pytest.raises(ConfigError) as caught:
            Settings(token=wrong)
        assert str(caught.value) == "token is no token; expected the text that the hub printed, without spaces."


def test_settings_cannot_be_changed_once_made() -> None:
    with pytest.raises(FrozenInstanceError):
        Settings().bind = "0.0.0.0:1"  # type: ignore[misc]  # the mistake under test
    with pytest.raises(TypeError):
        Settings(Path("/tmp/parties"))  # type: ignore[call-arg]  # the mistake under test
