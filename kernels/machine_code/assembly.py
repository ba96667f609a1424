"""Machine code of a launch, and what it says: registers, spills, shared memory and the mix of its instructions."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from fastdens.kernels.machine_code.recording import Launch

# Opcodes of SASS: matrix units (HGMMA is wgmma), arithmetic, memory, barriers and exchanges between threads, atomics.
OPCODES = (
    *("HGMMA", "HMMA", "DMMA", "UTCHMMA"),
    *("FFMA", "FMUL", "FADD", "DFMA", "DMUL", "DADD", "MUFU", "IMAD"),
    *("LDG", "STG", "LDGSTS", "LDS", "STS", "LDSM", "LDL", "STL"),
    *("BAR", "SHFL", "ATOM", "ATOMG", "RED"),
)
_INSTRUCTION = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?\w+\s+)?([A-Z][A-Z0-9_]*)", re.MULTILINE)


class Code(NamedTuple):
    """Resources of a thread and of a program, and how many instructions of each opcode there are."""

    registers: int
    spill_bytes: int
    shared_bytes: int
    n_instructions: int
    mix: dict[str, int]


def assemble(launch: Launch, target: int) -> Code:
    """Compile a launch for a compute capability, 90 for sm_90, with no GPU present."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    aligned = {(at,): [["tt.divisibility", 16]] for at in launch.aligned}
    source = ASTSource(launch.kernel, launch.signature, constexprs=launch.constants, attrs=aligned)
    compiled = triton.compile(source, target=GPUTarget("cuda", target, 32), options=launch.options)
    log = _ptxas_log(compiled.asm["ptx"])
    registers = max(int(n) for n in re.findall(r"Used (\d+) registers", log))
    spills = sum(int(n) for n in re.findall(r"(\d+) bytes spill", log))
    opcodes = Counter(_INSTRUCTION.findall(_disassembly(compiled.asm["cubin"])))
    opcodes.pop("NOP", None)
    mix = {opcode: opcodes[opcode] for opcode in OPCODES if opcodes[opcode]}
    return Code(registers, spills, compiled.metadata.shared, opcodes.total(), mix)


def _tools() -> Path:
    """The folder of the assembler and the disassembler that come with Triton."""
    import triton

    return Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


def _ptxas_log(ptx: str) -> str:
    """What the assembler tells of registers and spills."""
    architecture = re.search(r"\.target (sm_\w+)", ptx)
    assert architecture is not None
    log = ""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.ptx"
        source.write_text(ptx)
        # Triton ships one assembler or two; of two, the newer knows the newer PTX versions.
        for tool in ("ptxas-blackwell", "ptxas"):
            if (_tools() / tool).exists():
                output = str(source.with_suffix(".cubin"))
                command = [str(_tools() / tool), "-v", f"--gpu-name={architecture[1]}", str(source), "-o", output]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                log = done.stdout + done.stderr
                if done.returncode == 0:
                    return log
    raise RuntimeError(f"the ptxas that comes with Triton refused the kernel for {architecture[1]}: {log.strip()}")


def _disassembly(cubin: bytes) -> str:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.cubin"
        file.write_bytes(cubin)
        command = [str(_tools() / "nvdisasm"), "--print-code", str(file)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the nvdisasm that comes with Triton cannot read the kernel: {done.stderr.strip()}")
    return done.stdout
