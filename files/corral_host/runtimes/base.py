"""The interface of a runtime in the helper; as it is, the native one: systemd starts servers."""

import os


class Runtime:
    """``kind``: as plans name it; ``images``: whether a release is an image.

    ``variables``: prefixes of variables of its own program that change what a server sees.
    """

    kind = "native"
    images = False
    variables = ()

    def server_pid(self, instance, main):  # noqa: ARG002
        """The server's process, from the main process of its unit."""
        return main

    def is_planned(self, instance, pid):
        """Whether a process runs the planned program."""
        return os.readlink(f"/proc/{pid}/exe") == instance["argv"][0]

    def is_replaced(self, instance, main):  # noqa: ARG002
        """Whether the program was replaced since its server started."""
        return os.readlink(f"/proc/{main}/exe").endswith(" (deleted)")

    def image_problem(self, instance, main):  # noqa: ARG002
        """What is wrong with the image of a running server; "" if nothing is, or it has none."""
        return ""
