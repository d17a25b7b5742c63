"""Write findings.md from findings.json; with --run, first check the packages again.

A run downloads each package with pip, without installing or running it, unless the environment has that version. It
keeps the verdict on a finding while package, version, file, code and line stay the same, and names those left to judge.
"""

import json
import subprocess
import sys
import tarfile
import tempfile
import textwrap
import zipfile
from collections import Counter
from importlib import metadata
from pathlib import Path
from typing import Any

from dropkit.lint.engine.config import Config
from dropkit.lint.engine.project import check_paths
from dropkit.lint.engine.result import CheckResult

HERE = Path(__file__).parent
DATA, PAGE = HERE / "findings.json", HERE / "findings.md"
VERDICTS = ("right", "debatable", "wrong")
FIXES = ("safe", "unsafe", "none")
# What makes a finding the same in two runs. Its line number may differ.
SAME = ("package", "version", "file", "code", "text")
INTRODUCTION = """\
# What the rules found in well-known libraries

`dropkit check` with its default rules, on whole packages as published on PyPI, without installing or running them. Each
finding was judged by reading the source and, where it might matter, the rest of the package: *right* means true and
worth fixing, *debatable* true but harmless or superseded, *wrong* not true. The judges had not written the rules.
`python docs/write_findings.py --run` checks the packages again and writes this page.
"""

Record = dict[str, Any]


def page(data: Record) -> str:
    """The page for the packages and findings of findings.json."""
    return "\n".join([INTRODUCTION, _wrapped(shares(data["findings"])), "", *_packages(data), "", *_findings(data), ""])


def shares(findings: list[Record]) -> str:
    """How many of the findings were right, and how many have a fix."""
    verdicts = Counter(finding["verdict"] for finding in findings)
    fixes = Counter(finding["fix"] for finding in findings)
    judged = ", ".join(f"{verdicts[verdict]} {verdict}" for verdict in VERDICTS)
    safe, unsafe = (f"{fixes[kind]} ({percent(fixes[kind], findings)})" for kind in ("safe", "unsafe"))
    fixed = f"{safe} have a safe fix, which `--fix` applies, {unsafe} an unsafe one"
    return f"There are {len(findings)} findings: {judged}. {fixed}."


def percent(count: int, findings: list[Record]) -> str:
    """A share of the findings, as a whole number of percent."""
    return f"{100 * count / max(1, len(findings)):.0f} %"


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


def _packages(data: Record) -> list[str]:
    columns = (*VERDICTS, "safe fix", "unsafe fix")
    rows = [f"| package and version | findings | {' | '.join(columns)} |", "|---" * (2 + len(columns)) + "|"]
    for package, version in sorted(data["packages"].items(), key=lambda item: item[0].lower()):
        found = [finding for finding in data["findings"] if finding["package"] == package]
        verdicts = Counter(finding["verdict"] for finding in found)
        fixes = Counter(finding["fix"] for finding in found)
        counts = (*(verdicts[verdict] for verdict in VERDICTS), fixes["safe"], fixes["unsafe"])
        rows.append(f"| {package} {version} | {len(found)} | {' | '.join(map(str, counts))} |")
    return rows


def _findings(data: Record) -> list[str]:
    columns = ("place", "code", "fix", "verdict", "why")
    rows = [({**finding, "place": f"{finding['file']}:{finding['line']}"}) for finding in data["findings"]]
    table = [" | ".join(row[name] for name in columns) for row in rows]
    return [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|", *(f"| {row} |" for row in table)]


def run(data: Record) -> Record:
    """Check the packages again; keep the verdicts on findings that are still there."""
    known = {tuple(finding[name] for name in SAME): finding for finding in data["findings"]}
    findings: list[Record] = []
    for package, version in data["packages"].items():
        with tempfile.TemporaryDirectory() as folder:
            root = _source(package, version, Path(folder))
            result = check_paths([str(root)], Config(root=root))
            for record in _records(package, version, root, result):
                old = known.get(tuple(record[name] for name in SAME), {"verdict": "not judged", "why": ""})
                findings.append({**record, "verdict": old["verdict"], "why": old["why"]})
    findings.sort(key=lambda finding: (finding["package"].lower(), finding["file"], finding["line"], finding["code"]))
    return {"packages": data["packages"], "findings": findings}


def _records(package: str, version: str, root: Path, result: CheckResult) -> list[Record]:
    return [
        {
            "package": package,
            "version": version,
            "file": Path(finding.path)
            .relative_to(root.parent if (root / "__init__.py").is_file() else root)
            .as_posix(),
            "line": finding.span.line,
            "code": finding.code,
            "text": result.texts[finding.path, finding.cell].line(finding.span.line).strip(),
            "fix": "none" if finding.fix is None else "safe" if finding.fix.safe else "unsafe",
        }
        for finding in result.findings
    ]


def _source(package: str, version: str, folder: Path) -> Path:
    """The folder with the source of a package: the installed one, or one that is downloaded into `folder`."""
    try:
        if metadata.version(package).partition("+")[0] == version:
            return Path(str(metadata.distribution(package).locate_file(package)))
    except metadata.PackageNotFoundError:
        pass
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--no-deps", "--no-build-isolation", "-d", folder, f"{package}=={version}"], check=True)
    (archive,) = folder.iterdir()
    source = folder / "source"
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as files:
            files.extractall(source)
    else:
        with tarfile.open(archive) as files:
            files.extractall(source, filter="data")
        (source,) = source.iterdir()
    return source


if __name__ == "__main__":
    data = json.loads(DATA.read_text(encoding="utf-8"))
    if "--run" in sys.argv[1:]:
        data = run(data)
        DATA.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        for finding in data["findings"]:
            if finding["verdict"] not in VERDICTS:
                print(f"not judged: {finding['file']}:{finding['line']}: {finding['code']} {finding['text']}")
    PAGE.write_text(page(data), encoding="utf-8")
