"""Machine code of every Triton kernel, made and measured with no GPU present.

``python -m fastdens.kernels.machine_code`` compiles the kernels at the shapes of the benchmarks for sm_80, sm_90 and
sm_100 and prints registers per thread, spilled bytes and shared memory per program, as told by the ``ptxas`` that
comes with Triton. It needs the compiler, hence a process without TRITON_INTERPRET.
"""

from __future__ import annotations

import importlib
import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from fastdens.kernels.gaussian_pieces import config

TARGETS = (80, 90, 100)
MAX_SHARED_BYTES = 99 * 1024
MAX_REGISTERS = 255

_POINTERS = {torch.float32: "*fp32", torch.float64: "*fp64"}


@dataclass(frozen=True)
class KernelReport:
    """Resources of one kernel at one shape on one target."""

    name: str
    shape: str
    target: int
    registers: int
    spill_bytes: int
    shared_bytes: int


class _Variant(NamedTuple):
    """A kernel as its launcher launches it: types of arguments, constants, the dtype it computes in, warps, stages."""

    kernel: Any
    signature: dict[str, str]
    constants: dict[str, Any]
    dtype: torch.dtype
    num_warps: int
    num_stages: int


def _variants(n_features: int, dtype: torch.dtype, matmul_precision: str) -> Iterator[_Variant]:
    """Every kernel as the launchers pass it for points of D features."""

    def module(name: str) -> Any:
        return importlib.import_module(f"fastdens.kernels.{name}")

    blocks = config(n_features, dtype)
    p = _POINTERS[dtype]
    tile: dict[str, Any] = {"BLOCK_N": blocks.block_n, "BLOCK_D": blocks.block_d}
    sizes = {"n_points": "i32", "n_features": "i32", "n_components": "i32", "per_model": "i32"}
    form = {**tile, "NUM_D_BLOCKS": blocks.num_d_blocks, "PRECISION": matmul_precision}
    chunk = {"chunk_model": "*i64", "chunk_start": "*i64", "chunk_stop": "*i64"}
    tensors = ("points", "means", "factors", "log_norm", "log_joint_norm", "resp", "out", "centres")
    values = {name: p for name in (*tensors, "locations", "degrees_of_freedom")}
    values |= {"log_prob_norm": p, "partial": "*fp64", "first": "*i64", "nk": "*fp64", "moment": "*fp64"}
    values |= {"tile_model": "*i64", "tile_start": "*i64", "tile_stop": "*i64", **chunk, **sizes}
    values |= {"n_models": "i32", "n_gaussians": "i32", "n_factors": "i32", "n_elements": "i32"}
    values |= {"offsets": "*i64", "n_columns": "i32"}

    def variant(kernel: Any, **constants: Any) -> _Variant:
        # A launch makes a constant of an integer that is one.
        constants |= {"n_features": 1} if n_features == 1 and "n_features" in kernel.arg_names else {}
        names = [name for name in kernel.arg_names if name not in constants]
        signature = {name: values[name] for name in names}
        return _Variant(kernel, signature, constants, dtype, blocks.num_warps, blocks.num_stages)

    for triangular in (True, False):
        yield variant(module("gaussian_log_prob")._gaussian_log_prob_kernel, TRIANGULAR=triangular, **form)
        yield variant(module("mixture_log_prob")._mixture_log_prob_kernel, TRIANGULAR=triangular, **form)
        yield variant(module("responsibilities")._responsibilities_kernel, TRIANGULAR=triangular, **form)
    yield variant(module("student_t_log_prob")._student_t_log_prob_kernel, LOWEST=torch.finfo(dtype).min, **form)
    m_step = module("sufficient_statistics")
    yield variant(m_step._first_moments_kernel, **tile)
    yield variant(m_step._scatter_kernel, TIED=False, PRECISION=matmul_precision, **tile)
    yield variant(m_step._diagonal_scatter_kernel, **tile)
    yield variant(m_step._add_chunks_kernel, BLOCK=m_step._REDUCE_BLOCK)
    if dtype == torch.float32 and matmul_precision == "ieee":
        yield from _sampler_variants(n_features, module("gibbs.gibbs_sweep"))


def _sampler_variants(n_features: int, sampler: Any) -> Iterator[_Variant]:
    """The kernels of the sampler, which compute in float64 whatever the points are."""
    values = dict.fromkeys(("ranges", "keys", "count", "progress", "tile_model", "tile_start", "tile_stop"), "*i64")
    values |= dict.fromkeys(("order", "labels", "status", "out_labels", "trace_components"), "*i32")
    values |= dict.fromkeys(("n_rows", "n_features", "n_slots", "first_sweep", "n_sweeps", "thin"), "i32")
    for kernel, blocks, constants in (
        (sampler._gibbs_sweep_kernel, sampler.blocks(n_features), {"SLOTS": 16}),
        (sampler._forms_kernel, config(n_features, torch.float64), {}),
    ):
        constants |= {"BLOCK_N": blocks.block_n, "BLOCK_D": blocks.block_d, "NUM_D_BLOCKS": blocks.num_d_blocks}
        # One chain a model is the rule.
        constants |= {"n_chains": 1} | ({"n_features": 1} if n_features == 1 else {})
        signature = {name: values.get(name, "*fp64") for name in kernel.arg_names if name not in constants}
        yield _Variant(kernel, signature, constants, torch.float64, blocks.num_warps, 1)


def _resources(ptx: str, target: int) -> tuple[int, int]:
    """Registers per thread and spilled bytes, from ptxas."""
    import triton

    tools = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    arch = re.search(r"\.target (sm_\w+)", ptx)
    assert arch is not None
    log = ""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.ptx"
        source.write_text(ptx)
        # Triton ships one assembler or two; of two, the newer knows the newer PTX versions.
        for tool in ("ptxas-blackwell", "ptxas"):
            if (tools / tool).exists():
                output = str(source.with_suffix(".cubin"))
                command = [str(tools / tool), "-v", f"--gpu-name={arch[1]}", str(source), "-o", output]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                log = done.stdout + done.stderr
                if done.returncode == 0:
                    break
        else:
            raise RuntimeError(f"the ptxas that comes with Triton refused the kernel for {arch[1]}: {log.strip()}")
    registers = max(int(n) for n in re.findall(r"Used (\d+) registers", log))
    spills = sum(int(n) for n in re.findall(r"(\d+) bytes spill", log))
    return registers, spills


def compile_report(
    targets: Sequence[int] = TARGETS,
    shapes: Sequence[tuple[int, torch.dtype, str]] = (
        (16, torch.float32, "ieee"),
        (64, torch.float32, "ieee"),
        (64, torch.float32, "tf32x3"),
        (512, torch.float32, "ieee"),
        (16, torch.float64, "ieee"),
    ),
) -> list[KernelReport]:
    """Compile every kernel for every target.

    Parameters
    ----------
    targets : sequence of int
        Compute capabilities, 80 for sm_80.
    shapes : sequence of (D, dtype, matmul_precision)

    Returns
    -------
    list of KernelReport
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    reports = []
    for n_features, dtype, matmul_precision in shapes:
        for kernel, types, constants, own_dtype, num_warps, num_stages in _variants(
            n_features, dtype, matmul_precision
        ):
            signature = types | {name: "constexpr" for name in constants}
            ordered = {name: signature[name] for name in kernel.arg_names}
            # As at a launch: pointers from an allocator are aligned to 16 bytes, and D = 16, 64, 512 is a multiple.
            aligned = {
                (i,): [["tt.divisibility", 16]]
                for i, name in enumerate(kernel.arg_names)
                if ordered[name].startswith("*") or name == "n_features"
            }
            source = ASTSource(kernel, ordered, constexprs=constants, attrs=aligned)
            for target in targets:
                compiled = triton.compile(
                    source,
                    target=GPUTarget("cuda", target, 32),
                    options={"num_warps": num_warps, "num_stages": num_stages},
                )
                registers, spills = _resources(compiled.asm["ptx"], target)
                kind = ""
                if "TRIANGULAR" in constants:
                    kind = " triangular" if constants["TRIANGULAR"] else " diagonal"
                reports.append(
                    KernelReport(
                        kernel.__name__.strip("_") + kind,
                        f"D={n_features} {str(own_dtype).removeprefix('torch.')} {matmul_precision}",
                        target,
                        registers,
                        spills,
                        compiled.metadata.shared,
                    )
                )
    return reports


def main() -> None:
    """Print the report as a table."""
    print(f"{'kernel':40} {'shape':24} {'target':>7} {'registers':>9} {'spilled':>8} {'shared':>8}")
    for r in compile_report():
        print(
            f"{r.name:40} {r.shape:24} {'sm_' + str(r.target):>7} {r.registers:9} {r.spill_bytes:8} {r.shared_bytes:8}"
        )


if __name__ == "__main__":
    main()
