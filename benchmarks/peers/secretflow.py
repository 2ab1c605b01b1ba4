"""One party of a SecretFlow PSI run, executed by the interpreter of SecretFlow's own environment.

The library reads its ids from a CSV file and writes the result to another inside the one call it offers, so both are in
the time measured. Chosen in its favour: the output is not sorted where only the receiver gets it, and the ids are
declared unique, so that it need not look for repeats.
"""

from __future__ import annotations

import importlib
from typing import Any

from benchmarks.peers.party import Job, read_job, send_report, wait_for_go

CURVES = {
    "25519": "CURVE_25519",
    "25519-elligator2": "CURVE_25519_ELLIGATOR2",
    "fourq": "CURVE_FOURQ",
}
OTHER_PROTOCOLS = {"kkrt": "PROTOCOL_KKRT", "rr22": "PROTOCOL_RR22"}


def protocol_config(psi: Any, variant: str, both: bool) -> Any:
    """SecretFlow's configuration of one variant: ECDH on a curve, or another protocol."""
    chosen: dict[str, Any] = {"receiver_rank": 0, "broadcast_result": both}
    if variant in OTHER_PROTOCOLS:
        chosen["protocol"] = getattr(psi.PsiProtocol, OTHER_PROTOCOLS[variant])
    else:
        chosen["protocol"] = psi.PsiProtocol.PROTOCOL_ECDH
        chosen["ecdh_params"] = psi.EcdhParams(curve=getattr(psi.EllipticCurveType, CURVES[variant]))
    return psi.PsiProtocolConfig(**chosen)


def connect(link: Any, job: Job) -> Any:
    """The link between the two parties, on loopback."""
    description = link.Desc()
    for name, port in zip(("receiver", "sender"), job.ports, strict=True):
        description.add_party(name, f"127.0.0.1:{port}")
    description.recv_timeout_ms = int(job.deadline_s * 1000)
    return link.create_brpc(description, 0 if job.receives else 1)


def main() -> None:
    """Take part in one run."""
    job = read_job()
    psi: Any = importlib.import_module("spu.psi")
    link: Any = importlib.import_module("spu.libspu").link
    config = psi.PsiExecuteConfig(
        protocol_conf=protocol_config(psi, job.variant, job.both),
        input_params=psi.InputParams(path=job.ids, selected_keys=["id"], keys_unique=True),
        output_params=psi.OutputParams(path=job.answer, disable_alignment=not job.both),
    )
    context = connect(link, job)
    watch = wait_for_go()
    psi.psi_execute(config, context)
    send_report(watch.stop())
    context.stop_link()


if __name__ == "__main__":
    main()
