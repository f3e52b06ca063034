"""Packaging.

``fastreid`` is missing from the requirements on purpose: its metadata pins torch 1.13.1, so it is installed with
``pip install --no-deps fastreid==1.4.0`` (the Makefile does that) and what it really imports is listed here.
"""

import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent

REQUIRED = [
    "captum>=0.8",
    "faiss-cpu>=1.9",  # fast-reid imports it at once; of our own functions only knn_table(search="faiss") needs it
    "fastapi>=0.115",
    "jinja2>=3.1",
    "matplotlib>=3.9",
    "numba>=0.61",
    "numpy>=2.0",
    "open_clip_torch>=2.30",
    "packaging>=23.0",
    "pillow>=10.3",
    "python-multipart>=0.0.18",
    "pyyaml>=6.0",
    "safetensors>=0.4.3",
    "scikit-learn>=1.5",
    "scipy>=1.13.1",
    "tabulate>=0.9",
    "tensorboard>=2.18",
    "termcolor>=2.4",
    "torch>=2.6",
    "torchvision>=0.21",
    "tqdm>=4.66",
    "typer>=0.16",
    "uvicorn>=0.30",
    "yacs>=0.1.8",
]
# Needed by torch.onnx.export and fast-reid's onnx_export.py.
EXPORT = [
    "onnx>=1.16",
    "onnxoptimizer>=0.3.13",
    "onnxruntime>=1.19",
    "onnxscript>=0.1",
    "onnxsim>=0.4.36",
    "pyarrow>=17",
]
DEV = [
    *EXPORT,
    "cosmic-ray>=8.3",  # the changes of `make mutate`
    "httpx>=0.27",
    "hypothesis>=6.100",
    "import-linter>=2.16",
    "mypy>=1.15",
    "playwright>=1.49",  # drives an installed Chromium; its tests skip where there is none
    "pytest>=8.0",
    "pytest-cov>=6.0",
    "pytest-xdist>=3.6",
    "ruff>=0.12",
]


class BuildWithConfigs(build_py):
    """The configs are next to the package; a wheel gets a copy inside it, with the same relative paths."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return  # the source tree itself is used
        target = Path(self.build_lib) / "dnreid_plugins" / "_configs"
        shutil.rmtree(target, ignore_errors=True)
        projects = HERE / "projects"
        sources = [*(HERE / "configs").rglob("*.yml"), *projects.glob("*/configs/**/*.yml")]
        sources += projects.glob("*/reproduce.yml")
        if not sources:
            raise SystemExit(f"error: {HERE} has no configs/, without which the package cannot be built.")
        for source in sources:
            copy = target / source.relative_to(HERE)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)


readme = HERE / "README.md"

setup(
    name="dnreid_plugins",
    version="0.1.0",
    description="Unsupervised day/night re-identification as plug-ins for fast-reid",
    long_description=readme.read_text(encoding="utf-8") if readme.exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["dnreid_plugins", "dnreid_plugins.*"]),
    package_data={
        "dnreid_plugins": [
            "py.typed",
            "**/*.safetensors",
            "**/*.json",
            "**/*.yml",
            "**/*.html",
            "**/*.css",
            "**/*.js",
        ]
    },
    entry_points={"console_scripts": ["dnreid = dnreid_plugins.commands.app:main"]},
    cmdclass={"build_py": BuildWithConfigs},
    install_requires=REQUIRED,
    extras_require={"dev": DEV, "export": EXPORT},
)
