"""Machine code of every Triton kernel, made and measured with no GPU present.

``python -m fastdens.kernels.machine_code`` compiles the kernels at the shapes of the benchmarks for sm_80, sm_90 and
sm_100 and prints registers per thread, spilled bytes and shared memory per program, as told by the ``ptxas`` that
comes with Triton. It needs the compiler, hence a process without TRITON_INTERPRET.
"""

from __future__ import annotations

import functools
import importlib
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from fastdens.kernels.mahalanobis import config

TARGETS = (80, 90, 100)
MAX_SHARED_BYTES = 99 * 1024
MAX_REGISTERS = 255

_POINTERS = {torch.float32: "*fp32", torch.float64: "*fp64"}
# Arguments that are neither numbers of 32 bits nor pointers to the dtype that a kernel computes in.
_TYPES = {
    **dict.fromkeys(("chunk_nk_ptr", "chunk_moment_ptr", "chunk_log_likelihood_ptr", "work_ptr"), "*fp64"),
    **dict.fromkeys(("reg_covar_ptr", "tol_ptr", "lower_bound_ptr"), "*fp64"),
    **dict.fromkeys((f"{of}_{what}_ptr" for of in ("tile", "chunk") for what in ("model", "start", "stop")), "*i64"),
    **dict.fromkeys(("offsets_ptr", "first_ptr", "ranges_ptr", "keys_ptr", "counts_ptr", "progress_ptr"), "*i64"),
    **dict.fromkeys(("chain_ptr", "row_offset_ptr", "side_counts_ptr"), "*i64"),
    **dict.fromkeys(("order_ptr", "labels_ptr", "status_ptr", "out_labels_ptr", "out_n_components_ptr"), "*i32"),
    "n_steps_ptr": "*i64",
    **dict.fromkeys(("bad_ptr", "lost_ptr", "converged_ptr", "done_ptr", "skip_ptr"), "*i8"),
    **dict.fromkeys(("others_ptr", "side_ptr", "split_merge_ptr", "out_split_merge_ptr"), "*i32"),
}


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
    """A kernel as its launcher launches it."""

    kernel: Any
    label: str
    signature: dict[str, str]  # types of the arguments that are no constants
    constants: dict[str, Any]
    dtype: torch.dtype  # in which it computes
    num_warps: int
    num_stages: int
    max_registers: int | None


def _variant(
    kernel: Any, dtype: torch.dtype, blocks: Any, n_features: int, label: str = "", **constants: Any
) -> _Variant:
    # A launch makes a constant of an integer that is one.
    constants |= {"n_features": 1} if n_features == 1 and "n_features" in kernel.arg_names else {}
    names = [name for name in kernel.arg_names if name not in constants]
    usual = {name: _POINTERS[dtype] if name.endswith("_ptr") else "i32" for name in names}
    signature = {name: _TYPES.get(name, usual[name]) for name in names}
    num_stages, max_registers = getattr(blocks, "num_stages", 1), getattr(blocks, "max_registers", None)
    return _Variant(kernel, label, signature, constants, dtype, blocks.num_warps, num_stages, max_registers)


def _variants(n_features: int, dtype: torch.dtype, matmul_precision: str) -> Iterator[_Variant]:
    """Every kernel as the launchers pass it for points of D features."""
    # Kernels are defined when their module is first imported, which this module does not do on its own account.
    names = ("mixture", "m_step", "em_steps", "cholesky")
    mixture, m_step, em_steps, cholesky = (importlib.import_module(f"fastdens.kernels.{name}") for name in names)
    blocks = config(n_features, dtype)
    variant: Callable[..., _Variant] = functools.partial(_variant, dtype=dtype, blocks=blocks, n_features=n_features)
    tile = {"BLOCK_N": blocks.block_n, "BLOCK_D": blocks.block_d}
    loop = {**tile, "NUM_D_BLOCKS": blocks.num_d_blocks, "TIED": False}
    loop["LOWEST"] = torch.finfo(dtype).min
    everywhere = dict.fromkeys(("tile_model_ptr", "tile_start_ptr", "tile_stop_ptr"))
    gaussian = {"degrees_of_freedom_ptr": None}
    no_resp = {"done_ptr": None, "resp_ptr": None, "n_components": 0}
    for triangular in (True, False):
        kind = "triangular" if triangular else "diagonal"
        uses: dict[str, dict[str, Any]] = {
            "log_prob": {**gaussian, **everywhere, **no_resp},
            "responsibilities": gaussian,
        }
        uses |= {"student_t": {**everywhere, **no_resp}, "own student_t": no_resp} if triangular else {}
        for use, absent in uses.items():
            sizes = mixture.blocks(n_features, dtype, triangular, matmul_precision)
            constants = {"TRIANGULAR": triangular, "PRECISION": sizes.precision, **loop, **absent}
            yield variant(mixture._mixture_kernel, blocks=sizes, label=f"{use} {kind}", **constants)
    yield variant(m_step._first_moments_kernel, **tile)
    yield variant(m_step._means_kernel, TEN_EPS=10 * torch.finfo(dtype).eps, BLOCK_D=blocks.block_d)
    sizes = m_step.scatter_blocks(n_features, dtype, matmul_precision)
    scatter = {"BLOCK_N": sizes.block_n, "BLOCK_D": sizes.block_d, "ONE_BLOCK": sizes.num_d_blocks == 1}
    yield variant(m_step._scatter_kernel, blocks=sizes, TIED=False, PRECISION=sizes.precision, **scatter)
    yield variant(m_step._diagonal_scatter_kernel, SPHERICAL=False, **tile)
    yield variant(m_step._add_chunks_kernel, COVARIANCE_TYPE="full", BLOCK=m_step._REDUCE_BLOCK)
    for triangular in (True, False):
        kind = {"MATRICES": triangular, "TIED": False, **em_steps.PARAMETER_BLOCKS}
        label = "triangular" if triangular else "diagonal"
        yield variant(em_steps._begin_kernel, label=label, **kind)
        yield variant(em_steps._end_kernel, label=label, SPHERICAL=False, **kind)
    sizes = cholesky.blocks(n_features)
    if n_features <= cholesky.SMALL:
        yield variant(cholesky._factor_small_kernel, blocks=sizes, BATCH=sizes.batch, BLOCK=sizes.block)
    else:
        yield variant(cholesky._factor_blocked_kernel, blocks=sizes, BLOCK=sizes.block)
    if dtype == torch.float32 and matmul_precision == "ieee":
        yield from _sampler_variants(n_features)


def _block_constants(blocks: Any) -> dict[str, int]:
    return {"BLOCK_N": blocks.block_n, "BLOCK_D": blocks.block_d, "NUM_D_BLOCKS": blocks.num_d_blocks}


def _sampler_variants(n_features: int) -> Iterator[_Variant]:
    """The kernels of the sampler, which compute in float64 whatever the points are."""
    sweep, statistics = (importlib.import_module(f"fastdens.kernels.gibbs.{name}") for name in ("kernel", "statistics"))
    variant: Callable[..., _Variant] = functools.partial(_variant, dtype=torch.float64, n_features=n_features)
    # One chain a model is the rule.
    memory = dict.fromkeys(("others_ptr", "side_ptr", "side_counts_ptr", "sides_ptr"))
    no_moves = {**memory, "split_merge_ptr": None}
    for label, absent in (("", no_moves), ("refit", no_moves), ("refit between moves", memory), ("moves", {})):
        refit, moves = label.startswith("refit"), label == "moves"
        sizes = sweep.blocks(n_features, refit, moves)
        constants = {"SLOTS": 16, "REFIT": refit, "MOVES": moves, "n_chains": 1, **absent, **_block_constants(sizes)}
        yield variant(sweep.gibbs_sweep_kernel, blocks=sizes, label=label, **constants)
    sizes = config(n_features, torch.float64)
    yield variant(statistics.mahalanobis_kernel, blocks=sizes, n_chains=1, **_block_constants(sizes))


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
        (512, torch.float32, "tf32x3"),
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
        for variant in _variants(n_features, dtype, matmul_precision):
            names, constants = variant.kernel.arg_names, variant.constants
            signature = variant.signature | dict.fromkeys(constants, "constexpr")
            ordered = {name: signature[name] for name in names}
            # As at a launch: pointers from an allocator are aligned to 16 bytes, and D = 16, 64, 512 is a multiple.
            aligned = {
                (i,): [["tt.divisibility", 16]]
                for i, name in enumerate(names)
                if ordered[name].startswith("*") or (name == "n_features" and name not in constants)
            }
            source = ASTSource(variant.kernel, ordered, constexprs=constants, attrs=aligned)
            options = {
                "num_warps": variant.num_warps,
                "num_stages": variant.num_stages,
                "maxnreg": variant.max_registers,
            }
            for target in targets:
                compiled = triton.compile(source, target=GPUTarget("cuda", target, 32), options=options)
                registers, spills = _resources(compiled.asm["ptx"], target)
                reports.append(
                    KernelReport(
                        f"{variant.kernel.__name__.strip('_')} {variant.label}".strip(),
                        f"D={n_features} {str(variant.dtype).removeprefix('torch.')} {matmul_precision}",
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
