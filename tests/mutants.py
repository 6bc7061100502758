"""
Mutants: do the tests notice when a rule is broken? `make mutants`, or `python -m tests.mutants [words]`.

Plants each mistake of `mutants.txt` in a copy of the project, and runs the contract tests and then the
random histories. A mistake that no test notices survived: write the test that it deserves.

Exit status: 0 all were caught, 1 some survived, 2 the list is stale.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
TIMEOUT_S = 120.0
SUITES = {
    "contract": [
        "tests/core/test_rate.py",
        "tests/core/test_tickets.py",
        "tests/store/test_admission.py",
        "tests/store/test_tenants_and_times.py",
        "tests/store/test_line.py",
        "tests/store/test_never_late.py",
        "tests/store/test_job_turn.py",
        "tests/store/test_queue_found.py",
        "tests/store/test_job_dispatch.py",
        "tests/core/test_circuit.py",
        "tests/core/test_circuit_probes.py",
        "tests/core/test_quorum.py",
        "tests/core/test_effective.py",
        "tests/core/test_window.py",
        "tests/store/test_circuits.py",
        "tests/store/test_circuit_return.py",
        "tests/store/test_circuit_words.py",
        "tests/store/test_circuit_reports.py",
        "tests/store/test_circuit_jobs.py",
        "tests/store/test_override.py",
        "tests/store/test_alert_book.py",
        "tests/store/test_tallies.py",
    ],
    "model": ["tests/model"],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One planted mistake; lines are compared without their indentation."""

    wrong: str
    file: str
    original: tuple[str, ...]
    replacement: tuple[str, ...]

    def planted(self, text: str) -> str:
        """
        The file with the mistake in it.

        Raises:
            ValueError: The original text does not stand in it exactly once.

        """
        lines = text.split("\n")
        size = len(self.original)
        found = [
            at
            for at in range(len(lines) - size + 1)
            if all(part in line for part, line in zip(self.original, lines[at : at + size], strict=True))
        ]
        if len(found) != 1:
            raise ValueError(f"{self.wrong}: its text stands {len(found)} times in {self.file}, not once")
        for offset, (old, new) in enumerate(zip(self.original, self.replacement, strict=True)):
            lines[found[0] + offset] = lines[found[0] + offset].replace(old, new)
        return "\n".join(lines)


def read_mutants() -> list[Mutant]:
    """All blocks of `mutants.txt`."""
    text = (ROOT / "tests" / "mutants.txt").read_text(encoding="utf-8")
    mutants = []
    for block in text.split("\n\n"):
        lines = [line for line in block.strip().split("\n") if not line.startswith("#")]
        if len(lines) > 1:
            mutants.append(
                Mutant(
                    wrong=lines[0],
                    file=lines[1],
                    original=tuple(line[2:] for line in lines if line.startswith("- ")),
                    replacement=tuple(line[2:] for line in lines if line.startswith("+ ")),
                )
            )
    return mutants


def caught_by(mutant: Mutant, copy: Path) -> str | None:
    """The suite that turned red, or None."""
    file = copy / mutant.file
    sane = file.read_text(encoding="utf-8")
    file.write_text(mutant.planted(sane), encoding="utf-8")
    try:
        return next((suite for suite in SUITES if is_red(suite, copy)), None)
    finally:
        file.write_text(sane, encoding="utf-8")


def is_red(suite: str, copy: Path) -> bool:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *SUITES[suite]]
    environ = os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            command, cwd=copy, env=environ, capture_output=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return True  # it hangs: somebody would notice
    if done.returncode not in (0, 1):
        sys.exit(f"the tests did not run:\n{done.stdout.decode()}{done.stderr.decode()}")
    return done.returncode == 1


def main(words: list[str]) -> int:
    """Plant those whose description has all of the words, and say what became of each."""
    mutants = [mutant for mutant in read_mutants() if all(word in mutant.wrong for word in words)]
    for mutant in mutants:
        try:
            mutant.planted((ROOT / mutant.file).read_text(encoding="utf-8"))
        except ValueError as exc:
            print(exc)
            return 2
    survived = 0
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy = Path(folder)
        for name in ("breaker", "tests"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", copy)
        for suite in SUITES:
            if is_red(suite, copy):
                print(f"{suite}: red without any mistake planted")
                return 2
        for mutant in mutants:
            caught = caught_by(mutant, copy)
            survived += caught is None
            print(f"{caught or 'SURVIVED':<10} {mutant.file:<32} {mutant.wrong}", flush=True)
    print(f"{len(mutants) - survived} of {len(mutants)} caught")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
