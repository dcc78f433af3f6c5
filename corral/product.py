"""What comes with Corral beside this package: deploys, host helper, templates and catalog.

In a checkout these are its folders. A wheel has them inside the package, so that no name such as
``operations`` stands at the top of site-packages.
"""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

BUNDLE = "bundle"


def installed_product() -> Path:
    """The folder with the product's files: in the installed package, or the checkout."""
    package = Path(__file__).resolve().parent
    bundle = package / BUNDLE
    return bundle if bundle.is_dir() else package.parent


def product_of(root: Path) -> Path:
    """The product's files for a project; a checkout of Corral has its own."""
    return root if (root / "files" / "corral_host").is_dir() else installed_product()


def run(name: str) -> None:
    """Run ``deploy.py`` or ``config.py`` of the product, from the file of a fleet's own folder.

    pyinfra runs it for each host, some at once: nothing global is changed but the import path.
    """
    folder = installed_product()
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    spec = spec_from_file_location(f"corral_{Path(name).stem}", folder / name)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(folder / name)
    spec.loader.exec_module(module_from_spec(spec))
