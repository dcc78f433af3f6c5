"""The lab's hard day: inject faults into real hosts under load, and check a rule afterwards."""
