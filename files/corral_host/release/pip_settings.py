"""Where a host's pip is configured to fetch from, as a configuration of uv, which does not read it.

The addresses may have passwords, so that they travel in a file and in no argument.
"""

import ast
import json

# Of uv: what an administrator wrote for it goes before what pip is configured for.
OWN = "/etc/uv/uv.toml"
# pip takes the first of these sections that has a key; `:env:` is not here, since jobs have none.
SECTIONS = ("install", "global")
KEYS = ("index-url", "extra-index-url", "find-links", "no-index", "trusted-host")
TRUE = ("1", "true", "yes", "on")


def settings(listing):
    """Settings from the lines of `pip config list`, such as ``global.index-url='https://x/simple'``.

    Returns a dictionary from keys to lists of values, without keys that have none.
    """
    found = {}
    for line in listing.splitlines():
        name, _, value = line.partition("=")
        section, _, key = name.partition(".")
        if section in SECTIONS and key in KEYS:
            found[section, key] = str(ast.literal_eval(value)).split()
    merged = {}
    for key in KEYS:
        values = next((found[s, key] for s in SECTIONS if found.get((s, key))), None)
        if values:
            merged[key] = values
    return merged


def uv_toml(found):
    """The text of a uv.toml that fetches from the same places; empty where pip names none."""
    lines = []
    if found.get("no-index", ["no"])[0].lower() in TRUE:
        lines.append("no-index = true")
    if "find-links" in found:
        lines.append(f"find-links = {quoted(found['find-links'])}")
    if "trusted-host" in found:
        lines.append(f"allow-insecure-host = {quoted(found['trusted-host'])}")
    extra = found.get("extra-index-url", [])
    if extra:
        # As pip does: any index may have a distribution. The locked digests judge what it sends.
        lines.append('index-strategy = "unsafe-best-match"')
    for url in extra:
        lines += ["[[index]]", f"url = {quoted(url)}"]
    for url in found.get("index-url", [])[:1]:
        lines += ["[[index]]", f"url = {quoted(url)}", "default = true"]
    return "".join(line + "\n" for line in lines)


def quoted(value):
    """A string, or a list of strings, as TOML writes it: as JSON does."""
    return json.dumps(value, ensure_ascii=False)
