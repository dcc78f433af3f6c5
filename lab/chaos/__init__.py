"""The lab's hard day: real hosts under load, faults made on them, and a rule that is checked."""
