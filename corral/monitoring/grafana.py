"""The configuration of Grafana: it shows the dashboards of one Prometheus, and asks nobody else.

Pure. Keys as of Grafana 12.4.
"""

from __future__ import annotations

from collections.abc import Mapping

from corral.monitoring.dashboards import DASHBOARDS, dashboard_json
from corral.monitoring.yaml_text import yaml_text

DATA, LOGS = "/var/lib/grafana", "/var/log/grafana"
CONFIGURATION, DASHBOARD_FOLDER = "grafana.ini", "dashboards"
_PROVISIONING = "provisioning"
_BEGIN = "# Written by Corral.\n"


def grafana_files(
    folder: str, *, address: str, port: int, password_file: str, prometheus: str
) -> dict[str, str]:
    """Path -> text of what Grafana reads below ``folder``.

    + password_file: of its administrator, as Grafana sees it; + prometheus: URL of its data source
    """
    source = {
        "apiVersion": 1,
        "prune": True,
        "datasources": [
            {
                "name": "Prometheus",
                "uid": "corral",
                "type": "prometheus",
                "access": "proxy",
                "url": prometheus,
                "isDefault": True,
                "editable": False,
                "jsonData": {"timeInterval": "15s"},
            }
        ],
    }
    provider = {
        "apiVersion": 1,
        "providers": [
            {
                "name": "corral",
                "folder": "Corral",
                "type": "file",
                "allowUiUpdates": False,
                "options": {"path": f"{folder}/{DASHBOARD_FOLDER}"},
            }
        ],
    }
    shown = {
        f"{folder}/{DASHBOARD_FOLDER}/{one.name}.json": dashboard_json(one) for one in DASHBOARDS
    }
    settings = _settings(folder, address, port, password_file)
    return {
        f"{folder}/{CONFIGURATION}": _BEGIN + _ini(settings),
        f"{folder}/{_PROVISIONING}/datasources/corral.yaml": _BEGIN + yaml_text(source),
        f"{folder}/{_PROVISIONING}/dashboards/corral.yaml": _BEGIN + yaml_text(provider),
        **shown,
    }


def _settings(
    folder: str, address: str, port: int, password_file: str
) -> dict[str, dict[str, str]]:
    return {
        "paths": {
            "data": DATA,
            "logs": LOGS,
            "plugins": f"{DATA}/plugins",
            _PROVISIONING: f"{folder}/{_PROVISIONING}",
        },
        "server": {"http_addr": address, "http_port": str(port)},
        "log": {"mode": "console"},
        "security": {
            "admin_user": "admin",
            "admin_password": f"$__file{{{password_file}}}",
            "disable_gravatar": "true",
        },
        "auth.anonymous": {"enabled": "false"},
        "users": {"allow_sign_up": "false", "allow_org_create": "false"},
        "dashboards": {
            "default_home_dashboard_path": f"{folder}/{DASHBOARD_FOLDER}/{DASHBOARDS[0].name}.json"
        },
        # From here on: nobody outside is asked, and nothing is sent there.
        "analytics": {
            "reporting_enabled": "false",
            "check_for_updates": "false",
            "check_for_plugin_updates": "false",
            "feedback_links_enabled": "false",
        },
        "news": {"news_feed_enabled": "false"},
        "snapshots": {"external_enabled": "false"},
        "plugins": {
            "plugin_admin_enabled": "false",
            "preinstall_disabled": "true",
            "public_key_retrieval_disabled": "true",
        },
    }


def _ini(sections: Mapping[str, Mapping[str, str]]) -> str:
    return "\n".join(
        "".join([f"[{name}]\n", *(f"{key} = {value}\n" for key, value in settings.items())])
        for name, settings in sections.items()
    )
