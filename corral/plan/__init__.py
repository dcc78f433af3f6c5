"""Plans of hosts, instances and gateways as data; corral/planning makes the decisions."""
