"""A stand-in for Grafana's package: its files, its user, and a program that reads its settings.

It answers with what was provisioned to who has the administrator's password, and does nothing else.
"""

from __future__ import annotations

from lab.gpus import File
from lab.package_repository import DebPackage

_UNIT = """[Unit]
Description=Grafana instance

[Service]
EnvironmentFile=/etc/default/grafana-server
User=grafana
Group=grafana
ExecStart=/usr/share/grafana/bin/grafana server --config=/etc/grafana/grafana.ini
Restart=on-failure

[Install]
WantedBy=multi-user.target
"""
_POSTINST = """#!/bin/sh
set -e
id grafana >/dev/null 2>&1 || useradd --system --home-dir /usr/share/grafana grafana
mkdir -p /var/lib/grafana /var/log/grafana
chown grafana:grafana /var/lib/grafana /var/log/grafana
"""
_PROGRAM = """#!/usr/bin/python3
import base64, configparser, http.server, json, pathlib, re, sys

words = [part for word in sys.argv[1:] for part in word.split("=", 1)]
ini = configparser.ConfigParser(interpolation=None)
ini.read_file(open(words[words.index("--config") + 1]))


def value(section, key):
    text = ini[section][key]
    found = re.fullmatch(r"\\$__file\\{(.*)\\}", text)
    return pathlib.Path(found[1]).read_text().strip() if found else text


database = pathlib.Path(value("paths", "data"), "grafana.db")
if words[0] == "cli":
    assert words[-3:] == ["admin", "reset-admin-password", "--password-from-stdin"], words
    database.write_text(sys.stdin.readline().strip())
    sys.exit()
if not database.exists():
    database.write_text(value("security", "admin_password"))
login = value("security", "admin_user") + ":" + database.read_text()
wanted = "Basic " + base64.b64encode(login.encode()).decode()
provisioned = pathlib.Path(value("paths", "provisioning"))


def search():
    text = (provisioned / "dashboards/corral.yaml").read_text()
    folder = re.search('path: "(.*)"', text)[1]
    found = sorted(pathlib.Path(folder).glob("*.json"))
    return [json.loads(one.read_text())["uid"] for one in found]


def sources():
    text = (provisioned / "datasources/corral.yaml").read_text()
    return re.findall('url: "(.*)"', text)


ANSWERS = {"/api/search": search, "/api/datasources": sources}


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        is_open = self.path == "/api/health" or value("auth.anonymous", "enabled") == "true"
        if not is_open and self.headers["Authorization"] != wanted:
            self.send_error(401)
        elif self.path == "/api/health":
            self.answer({"database": "ok"})
        elif self.path in ANSWERS:
            self.answer(ANSWERS[self.path]())
        else:
            self.send_error(404)

    def answer(self, found):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(found).encode())


address = value("server", "http_addr"), int(value("server", "http_port"))
http.server.ThreadingHTTPServer(address, Handler).serve_forever()
"""


def grafana(version: str) -> DebPackage:
    """The package in a version."""
    return DebPackage(
        "grafana",
        version,
        files=(
            File("usr/share/grafana/bin/grafana", _PROGRAM, 0o755),
            File("usr/lib/systemd/system/grafana-server.service", _UNIT),
            File("etc/default/grafana-server", "GF_AUTH_ANONYMOUS_ENABLED=true\n"),
        ),
        scripts={"postinst": _POSTINST},
    )
