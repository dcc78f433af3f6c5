"""Package repositories that this host is configured with (sources.list(5), both formats)."""

import re
from pathlib import Path

FOLDER = Path("/etc/apt")
# Corral's own file adds to these.
OWN = "corral-nvidia.sources"
LINE = re.compile(r"^deb\s+(?:\[(?P<options>[^\]]*)\]\s+)?(?P<uri>\S+)\s+(?P<rest>.+)$")


def apt_sources():
    """Each repository and suite with its components, and how apt trusts it."""
    found = []
    parts = FOLDER / "sources.list.d"
    for path in [FOLDER / "sources.list", *sorted(parts.glob("*.list"))]:
        if path.is_file():
            found += [row for line in lines_of(path) for row in of_line(line)]
    for path in sorted(parts.glob("*.sources")):
        if path.name != OWN and path.is_file():
            found += [row for stanza in stanzas(path) for row in of_stanza(stanza)]
    return found


def lines_of(path):
    return path.read_text(errors="replace").splitlines()


def of_line(line):
    """Rows of a one-line entry, such as ``deb [signed-by=/k.gpg] https://x trixie main``."""
    found = LINE.match(line.partition("#")[0].strip())
    if not found:
        return []
    options = dict(pair.split("=", 1) for pair in (found["options"] or "").split() if "=" in pair)
    suite, *components = found["rest"].split()
    return [
        row(found["uri"], suite, components, options.get("signed-by", ""), options.get("trusted"))
    ]


def stanzas(path):
    """Fields of each paragraph of a deb822 file; a value keeps the lines that continue it."""
    fields, last = {}, ""
    for line in [*lines_of(path), ""]:
        if line.startswith("#"):
            continue
        if not line.strip():
            if fields:
                yield fields
            fields, last = {}, ""
        elif line[0] in " \t" and last:
            fields[last] += "\n" + line
        elif ":" in line:
            last, _, text = line.partition(":")
            last = last.strip().lower()
            fields[last] = text.strip()


def of_stanza(fields):
    if "deb" not in fields.get("types", "").split() or is_no(fields.get("enabled", "yes")):
        return
    for uri in fields.get("uris", "").split():
        for suite in fields.get("suites", "").split():
            components = fields.get("components", "").split()
            yield row(uri, suite, components, fields.get("signed-by", ""), fields.get("trusted"))


def is_no(text):
    return text.strip().lower() in ("no", "false", "off", "0", "without", "disable")


def row(uri, suite, components, signed_by, trusted):
    return {
        "uri": uri, "suite": suite, "components": components, "signed_by": signed_by,
        "trusted": trusted == "yes",
    }  # fmt: skip
