"""What pyproject.toml cannot say of the build: compiler flags, when the extension may be missing, and absolute links.

The reference kernel serves without the extension, and the checker needs neither. In the environment,
DROPKIT_REQUIRE_EXTENSION=1 makes a build without it fail, and DROPKIT_PURE=1 builds a wheel of Python files alone, for
every platform. Free-threaded Python has no limited API, so no extension is built there.
"""

import os
import re
import sysconfig
from pathlib import Path

from setuptools import Distribution, Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

REQUIRED = os.environ.get("DROPKIT_REQUIRE_EXTENSION", "") not in ("", "0")
PURE = os.environ.get("DROPKIT_PURE", "") not in ("", "0")
FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
# A multiply and an add that are fused into one instruction would change the last bit between instruction sets.
UNIX_FLAGS = ["-std=c++17", "-O3", "-ffp-contract=off", "-fvisibility=hidden", "-g0"]
MSVC_FLAGS = [
    "/std:c++17",
    "/permissive-",
    "/O2",
    "/fp:precise",
]  # /fp:precise fuses nothing unless /fp:contract is given


class Source(Distribution):
    """Has no extension where a pure wheel is asked for."""

    def has_ext_modules(self) -> bool:
        return not PURE and super().has_ext_modules()


class BuildExtension(build_ext):
    """Builds what can be built."""

    def finalize_options(self) -> None:
        super().finalize_options()
        for extension in self.extensions:
            extension.optional = not REQUIRED

    def build_extension(self, ext: Extension) -> None:
        ext.extra_compile_args = MSVC_FLAGS if self.compiler.compiler_type == "msvc" else UNIX_FLAGS
        super().build_extension(ext)

    def run(self) -> None:
        if FREE_THREADED and REQUIRED:
            raise SystemExit("DROPKIT_REQUIRE_EXTENSION must be unset: free-threaded Python has no limited C API")
        if FREE_THREADED:
            self.extensions = []
            self._warn("free-threaded Python has no limited C API")
            return
        super().run()
        if not all(Path(output).exists() for output in self.get_outputs()):
            self._warn("the C++ compiler failed or is missing, see above")

    def _warn(self, reason: str) -> None:
        lines = (
            f"dropkit is built WITHOUT its C++ kernel: {reason}.",
            "Everything works, but dropout on the CPU is some 100 times slower. `dropkit kernels` says the same.",
            "Set DROPKIT_REQUIRE_EXTENSION=1 to make this an error.",
        )
        self.warn("\n" + "\n".join(f"*** {line}" for line in lines))


class Wheel(bdist_wheel):
    """Names the wheel after the limited API where there is one."""

    def finalize_options(self) -> None:
        if FREE_THREADED or PURE:
            self.py_limited_api = False
        super().finalize_options()


def readme() -> str:
    """README.md with links that lead to files of the repository, wherever it is read."""
    source = re.findall(r'^Source = "(.+)"$', Path("pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)[0]
    text = Path("README.md").read_text(encoding="utf-8")
    return re.sub(r"\]\((?!https?:|#)", f"]({source}/blob/main/", text)


if PURE and REQUIRED:
    raise SystemExit("DROPKIT_REQUIRE_EXTENSION must be unset where DROPKIT_PURE is set")
setup(
    distclass=Source,
    cmdclass={"build_ext": BuildExtension, "bdist_wheel": Wheel},
    long_description=readme(),
    long_description_content_type="text/markdown",
)
