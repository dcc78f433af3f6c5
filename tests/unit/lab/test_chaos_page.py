"""What docs/measurements says of the hard day's record is what the record says."""

from __future__ import annotations

import json

import pytest

from lab.chaos.page import headline
from lab.chaos.table import markdown, tables
from tests.samples import ROOT

MEASUREMENTS = ROOT / "docs" / "measurements"


@pytest.mark.parametrize("record", ["chaos.json", "chaos-alerts.json"])
def test_the_page_has_the_tables_of_its_records(record: str) -> None:
    page = (MEASUREMENTS / "chaos.md").read_text()
    document = json.loads((MEASUREMENTS / record).read_text())
    wanted = [headline(document).splitlines()[0], *map(markdown, tables(document))]
    assert [text for text in wanted if text not in page] == []
