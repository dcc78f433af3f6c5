"""Install pinned programs of the monitoring, which no distribution has."""

import os

from corral_host.observe.monitored import wrong_programs
from corral_host.system.apt import apt_get, fetch_key, refuse_another
from corral_host.system.commands import HostError, digest_or_none
from corral_host.system.kernel import run


def fetch_keys(document, known):
    """Fetch keys of repositories, before the files that add these: else apt takes no list.

    ``document``: see `install_programs`; ``known``: path -> sha256 of keyrings that were proved.
    A bundle's packages are signed by its own key.
    """
    if document.get("apt_config"):
        return
    programs = document["monitoring"].get("programs", ())
    wrong = wrong_programs(programs)
    for one in programs:
        path = one["keyring"]
        is_proved = known.get(path) and known[path] == digest_or_none(path)
        if one["key_url"] and (one["package"] in wrong or not is_proved):
            fetch_key(one["key_url"], one["key_fingerprint"], path, one["catalog"])


def install_programs(document):
    """Install those that are missing or in another version; returns their names.

    ``document``: a plan, whose files of apt are in place; ``apt_config``: of a bundle as the only
    source, or none.
    """
    programs = document["monitoring"]["programs"]
    wrong = wrong_programs(programs)
    if document.get("apt_config"):
        os.environ["APT_CONFIG"] = document["apt_config"]
    apt_get("update")
    for one in programs:
        refuse_newer(one, wrong.get(one["package"]))
        refuse_another(one["package"], one["version"], one["catalog"])
    if wrong:
        apt_get("install", "--no-install-recommends", *wrong)
    return {"installed": list(wrong)}


def refuse_newer(program, installed):
    """Raises HostError where the pinned version is older than the one that made the database."""
    name, candidate = program["package"], program["version"].rstrip("*").rstrip(".")
    if installed and run("dpkg", "--compare-versions", installed, "gt", candidate).returncode == 0:
        raise HostError(
            f"{name} {installed} is installed, which is newer than {program['version']}, and an "
            "older one cannot read its database",
            f"pin it in {program['catalog']}, or remove the package and its data on the host",
        )
