"""What happens to a host, in order. Run: pyinfra inventories/prod.py deploy.py"""

from pyinfra import config

from deploys.base import base
from deploys.connection import guard_terminal, report_unreached, send_at_once
from deploys.engines import engines, prune
from deploys.fit import fit
from deploys.gateway import gateway, switch_gateway
from deploys.gpu import gpu
from deploys.instances import activate, instances, remove_orphans, verify
from deploys.models import models, prune_weights
from deploys.monitoring import monitoring
from deploys.preflight import preflight
from deploys.target import current_target

config.REQUIRE_PYINFRA_VERSION = "~=3.10.0"

guard_terminal()
report_unreached()
send_at_once()
target = current_target()
preflight(target)
if target.is_root:
    base(target)
    gpu(target)
    engines(target)
    fit(target)  # before any weights are fetched
    models(target)
    instances(target)  # staged, nothing restarted
    gateway(target)  # staged as well
    monitoring(target)
    if not target.host.options.stage_only:
        activate(target)
        switch_gateway(target)
        remove_orphans(target)
        verify(target)
        prune(target)
        prune_weights(target, changes=bool(target.waiting_instances()))
