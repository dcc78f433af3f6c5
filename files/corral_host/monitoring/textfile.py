"""The text format of Prometheus, for the textfile collector of node_exporter.

https://prometheus.io/docs/instrumenting/exposition_formats/, version 0.0.4.
"""

import math
import os

from corral_host.system.commands import HostError, write_atomic


class Textfile:
    """Samples by metric. A metric has to be one block, whatever order its samples come in."""

    def __init__(self):
        self.blocks = {}
        self.histograms = {}

    def add(self, metric, number, **labels):
        """Add a sample; None is no sample: what is unknown is absent, never 0."""
        if number is not None and math.isfinite(number):
            self.blocks.setdefault(metric, []).append((labels, number))

    def histogram(self, metric, bounds, counts, total, **labels):
        """Add a histogram. ``counts``: of each bound alone, one more of what is above all."""
        lines, below = self.histograms.setdefault(metric, []), 0
        for bound, count in zip([*bounds, "+Inf"], counts):
            below += count
            lines.append(f"{metric}_bucket{label_text({**labels, 'le': bound})} {below}")
        lines.append(f"{metric}_sum{label_text(labels)} {total:.15g}")
        lines.append(f"{metric}_count{label_text(labels)} {below}")

    def text(self):
        plain = "".join(block(metric, samples) for metric, samples in self.blocks.items())
        return plain + "".join(
            "\n".join([f"# TYPE {metric} histogram", *lines]) + "\n"
            for metric, lines in self.histograms.items()
        )

    def write(self, path):
        """Write it whole, by one rename. Raises HostError if the collector's folder is missing."""
        folder = os.path.dirname(path)
        if not os.path.isdir(folder):
            raise HostError(
                f"{folder} is missing, where node_exporter reads text files",
                "deploy this host again, which installs prometheus-node-exporter",
            )
        write_atomic(path, self.text())


def scaled(number, factor):
    """A figure in the unit of its metric; None if it is unknown."""
    return None if number is None else number * factor


def block(metric, samples):
    kind = "counter" if metric.endswith("_total") else "gauge"
    lines = [f"# TYPE {metric} {kind}"]
    lines += [f"{metric}{label_text(labels)} {number:.15g}" for labels, number in samples]
    return "\n".join(lines) + "\n"


def label_text(labels):
    pairs = [f'{name}="{escaped(found)}"' for name, found in labels.items()]
    return f"{{{','.join(pairs)}}}" if pairs else ""


def escaped(found):
    """A label's value on one line; what is no text in UTF-8 is replaced."""
    text = str(found).encode(errors="replace").decode(errors="replace")
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
