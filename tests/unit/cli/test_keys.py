"""`corral keys`: what a person names, and what is told of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from corral.cli import cli
from corral.cli import keys as keys_module
from corral.cli.select import Inventories
from corral.errors import CorralError
from corral.inventory.hosts import Host, Inventory, read_inventory
from corral.keys.adoption import Adopted, Wanted
from corral.store.api_keys import key_path, keys_in
from tests.unit.gateway_samples import fleet

INVENTORY = ("-i", "i.py")


class Asked:
    """Notes what shall be taken over."""

    def __init__(self) -> None:
        self.wanted: list[tuple[str, tuple[str, ...] | None]] = []
        self.outcome: list[Adopted] = []

    def adopt(self, wanted: list[Wanted], _: Inventory, *, replace: bool) -> list[Adopted]:
        assert not replace
        self.wanted += [(one.host.name, one.names) for one in wanted]
        return self.outcome


@pytest.fixture
def hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Host]:
    found = fleet(tmp_path / "store")
    read = Inventory(path=Path("i.py"), hosts=tuple(found))
    monkeypatch.setattr(keys_module, "inventories", lambda _: Inventories((read,)))
    return found


@pytest.fixture
def asked(hosts: list[Host], monkeypatch: pytest.MonkeyPatch) -> Asked:
    assert hosts
    made = Asked()
    monkeypatch.setattr(keys_module, "adopt", made.adopt)
    return made


def corral(*words: str) -> Result:
    return CliRunner().invoke(cli, ["keys", *words])


def refusal(result: Result) -> CorralError:
    assert isinstance(result.exception, CorralError), result.output
    return result.exception


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (("one/chat",), [("one", ("chat",))]),
        (("one",), [("one", None)]),
        (("chat",), [(name, ("chat",)) for name in ("one", "two", "shy")]),
        (("one/chat", "one/long"), [("one", ("chat", "long"))]),
        (("gw/upstream-small", "one/long"), [("one", ("long",)), ("gw", ("upstream-small",))]),
        (INVENTORY, [(name, None) for name in ("one", "two", "shy", "gw")]),
    ],
)
def test_what_is_named_is_taken_over(
    names: tuple[str, ...], wanted: list[tuple[str, object]], asked: Asked
) -> None:
    result = corral("adopt", *names)
    assert result.exit_code == 0, result.output
    assert asked.wanted == wanted


@pytest.mark.parametrize("name", ["thre", "one/cht", "one/upstream-small", "two/long", "one/"])
@pytest.mark.parametrize("command", ["adopt", "new"])
def test_a_name_that_is_none_is_told(command: str, name: str, asked: Asked) -> None:
    assert refusal(corral(command, name)).what.startswith("no such host or instance")
    assert asked.wanted == []


@pytest.mark.usefixtures("asked")
def test_nothing_named_is_nothing_meant() -> None:
    assert refusal(corral("adopt")).what == "nothing named"
    assert corral("new").exit_code == 2


def test_how_it_went_is_told_and_a_problem_fails(asked: Asked) -> None:
    asked.outcome = [Adopted(name="one/chat", changed=True), Adopted(name="one/long")]
    result = corral("adopt", "one")
    assert result.exit_code == 0
    assert result.output.splitlines() == [
        "one/chat: is in the store now", "one/long: is in the store already",
    ]  # fmt: skip
    asked.outcome.append(Adopted(name="two", problem="not reached. Next: bring it up"))
    result = corral("adopt", "one", "two")
    assert result.exit_code == 1
    assert "two: not reached. Next: bring it up" in result.output
    asked.outcome = []
    assert "the store has all keys of these hosts" in corral("adopt", "one").output


def test_a_new_key_is_told_by_its_file_and_never_shown(hosts: list[Host]) -> None:
    result = corral("new", "one/chat", "gw/gateway-small")
    assert result.exit_code == 0, result.output
    path = key_path(hosts[0], "chat")
    assert f"one/chat: a new key is in {path}; deploy one" in result.output
    (key,) = keys_in(path.read_text())
    assert key not in result.output
    assert refusal(corral("new", "one/chat")).next_step.startswith("add --replace")
    assert corral("new", "one/chat", "--replace").exit_code == 0
    assert keys_in(path.read_text()) != [key]


WITH_MISTAKES = """
chat = {"name": "chat", "profile": "tiny-chat", "port": 8001}
servers = [
    ("right", {"instances": [chat]}),
    ("wrong", {"instances": [{**chat, "prt": 1}], "key_folder": "elsewhere"}),
]
"""


@pytest.fixture
def one_is_wrong(asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Asked:
    path = tmp_path / "i.py"
    path.write_text(WITH_MISTAKES.replace("elsewhere", str(tmp_path)))
    read = Inventories((read_inventory(path),), (CorralError("other.py", "is wrong", "edit it"),))
    monkeypatch.setattr(keys_module, "inventories", lambda _: read)
    asked.outcome = [Adopted(name="right/chat", changed=True)]
    return asked


@pytest.mark.parametrize("name", ["right", "right/chat"])
def test_a_mistake_of_another_host_keeps_nobody_from_its_keys(
    name: str, one_is_wrong: Asked
) -> None:
    result = corral("adopt", name)
    assert (result.exit_code, [host for host, _ in one_is_wrong.wanted]) == (0, ["right"])
    assert "right/chat: is in the store now" in result.output
    assert "other.py: is wrong\n  Next: edit it" in result.output


def test_of_a_host_with_a_mistake_nothing_is_kept(one_is_wrong: Asked) -> None:
    for words in (("wrong",), ("wrong/chat",)):
        result = corral("adopt", *words)
        assert (result.exit_code, one_is_wrong.wanted) == (1, [])
        assert 'i.py: wrong: unknown key "key_folder" (did you mean "keys_folder"?)' in (
            result.output
        )
    assert corral("adopt", *INVENTORY).exit_code == 1
    assert one_is_wrong.wanted == [("right", None)]
    assert "key_folder" in refusal(corral("new", "wrong/chat")).what


@pytest.mark.usefixtures("one_is_wrong")
def test_a_new_key_is_made_beside_the_mistake_of_another_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert corral("new", "right/chat").exit_code == 0
