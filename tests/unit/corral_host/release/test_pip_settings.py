"""What a host's pip is configured for, as uv reads it."""

from __future__ import annotations

import tomllib

import pytest

from tests.unit.helper_modules import helper_module

pip_settings = helper_module("release.pip_settings")


@pytest.mark.parametrize(
    ("listing", "meant"),
    [
        ("", {}),
        ("global.timeout='60'\nlist.format='columns'\n", {}),
        (
            "global.index-url='https://a/simple'",
            {"index": [{"url": "https://a/simple", "default": True}]},
        ),
        (
            "global.index-url='https://a/simple'\ninstall.index-url='https://b/\"simple'",
            {"index": [{"url": 'https://b/"simple', "default": True}]},
        ),
        (
            "global.extra-index-url='\\nhttps://a/s\\nhttps://b/s'\nglobal.trusted-host='a b'",
            {
                "allow-insecure-host": ["a", "b"],
                "index-strategy": "unsafe-best-match",
                "index": [{"url": "https://a/s"}, {"url": "https://b/s"}],
            },
        ),
        (
            "global.no-index='true'\nglobal.find-links='/srv/wheels'",
            {"no-index": True, "find-links": ["/srv/wheels"]},
        ),
        ("global.no-index='false'\nglobal.index-url=''", {}),
    ],
)
def test_settings_of_pip_are_those_of_uv(listing: str, meant: dict[str, object]) -> None:
    text = pip_settings.uv_toml(pip_settings.settings(listing))
    assert tomllib.loads(text) == meant
