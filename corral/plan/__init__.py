"""Plans as data: what hosts, instances and gateways will be. No decisions are made here."""
