"""The peers' own virtual environments: made with venv and pip when missing, kept, and used again."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

INSTALL_DEADLINE_S = 900.0
QUICK_DEADLINE_S = 120.0


class PeerUnavailable(RuntimeError):
    """A peer cannot be installed here; the text says why."""


@dataclass(frozen=True)
class Peer:
    """A library to compare with, and how it is installed.

    `pythons` are the interpreter versions that it has wheels for. `requirements` are installed first; with `alone`,
    the distribution itself then comes without what it declares (SecretFlow's declares more than its PSI needs).
    """

    name: str
    distribution: str
    version: str
    module: str
    pythons: tuple[tuple[int, int], ...]
    requirements: tuple[str, ...] = ()
    alone: bool = False


OPENMINED = Peer(
    name="openmined",
    distribution="openmined-psi",
    version="2.0.6",
    module="private_set_intersection.python",
    pythons=((3, 10), (3, 11), (3, 12), (3, 13)),
)

SECRETFLOW = Peer(
    name="secretflow",
    distribution="spu",
    version="0.9.5",
    module="spu.psi",
    pythons=((3, 10), (3, 11)),
    requirements=(
        "numpy<2",
        "jax[cpu]<=0.4.34",
        "protobuf<6",
        "cloudpickle",
        "multiprocess",
        "cachetools",
        "termcolor",
    ),
    alone=True,
)


def ensure(peer: Peer, folder: Path, base_python: str = sys.executable) -> Path:
    """The Python of an environment in which `peer` can be imported, made in `folder` where there is none yet.

    Raises:
        PeerUnavailable: if the interpreter is of a version that the peer has no wheels for, or pip fails.
    """
    python = folder / "bin" / "python"
    if installed_version(peer, python) == peer.version:
        return python
    check_version(peer, base_python)
    print(f"{peer.name}: installing {peer.distribution} {peer.version} into {folder}", file=sys.stderr, flush=True)
    if folder.exists() and not (folder / "pyvenv.cfg").exists():
        raise PeerUnavailable(
            f"{folder} exists and is no virtual environment: name another folder with --venvs, or remove it"
        )
    shutil.rmtree(folder, ignore_errors=True)
    run_or_raise([base_python, "-m", "venv", str(folder)])
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:"]
    if peer.requirements:
        run_or_raise([*pip, *peer.requirements])
    run_or_raise([*pip, *(["--no-deps"] if peer.alone else []), f"{peer.distribution}=={peer.version}"])
    if installed_version(peer, python) != peer.version:
        raise PeerUnavailable(f"{peer.distribution} {peer.version} was installed, but {peer.module} cannot be imported")
    return python


def installed_version(peer: Peer, python: Path) -> str | None:
    """The version of the peer that this interpreter can import, or None."""
    if not python.exists():
        return None
    question = f"import importlib.metadata as m, {peer.module}; print(m.version({peer.distribution!r}))"
    done = finish([str(python), "-Es", "-c", question], QUICK_DEADLINE_S)
    lines = done.stdout.split()
    return lines[-1] if done.returncode == 0 and lines else None


def check_version(peer: Peer, base_python: str) -> None:
    """Refuse an interpreter for which the peer publishes no wheels."""
    question = "import json, sys; print(json.dumps(sys.version_info[:2]))"
    done = finish([base_python, "-Es", "-c", question], QUICK_DEADLINE_S)
    if done.returncode:
        raise PeerUnavailable(f"{base_python} does not run: {last_line(done.stderr)}")
    version = tuple(json.loads(done.stdout))
    if version not in peer.pythons:
        wanted = ", ".join(f"{major}.{minor}" for major, minor in peer.pythons)
        raise PeerUnavailable(
            f"{peer.distribution} {peer.version} has wheels for Python {wanted}, and {base_python} is "
            f"{'.'.join(map(str, version))}: give a suitable one with --peer-python"
        )


def run_or_raise(command: list[str]) -> None:
    """Run one step of an installation.

    Raises:
        PeerUnavailable: with the last line of what the command said, if it fails or takes too long.
    """
    done = finish(command, INSTALL_DEADLINE_S)
    if done.returncode:
        raise PeerUnavailable(f"`{' '.join(command[1:])}` failed: {last_line(done.stderr)}")


def finish(command: list[str], deadline_s: float) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, or to its deadline; either failure is in the return code."""
    try:
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=deadline_s, check=False
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"no end within {deadline_s:.0f} s")
    except OSError as problem:
        return subprocess.CompletedProcess(command, 1, "", str(problem))


def last_line(text: str) -> str:
    """The last line that says something; pip puts its reason there."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")]
    return (errors or lines or ["it said nothing"])[-1]
