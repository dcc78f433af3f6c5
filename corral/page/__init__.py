"""One page of a fleet for people: its document, its HTML, its alerts and its server."""
