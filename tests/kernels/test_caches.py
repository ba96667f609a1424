"""Folders of compiled code in which other users may put code of theirs."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from fastdens.kernels.caches import check_cache

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the permissions are those of POSIX")


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o702])
def test_a_folder_that_everyone_may_write_to_is_refused(tmp_path, monkeypatch, mode):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    check_cache("NUMBA_CACHE_DIR")
    (tmp_path / "cache").mkdir()
    check_cache("NUMBA_CACHE_DIR")
    (tmp_path / "cache").chmod(mode)
    with pytest.raises(PermissionError, match=r"NUMBA_CACHE_DIR is .*, to which other users may write"):
        check_cache("NUMBA_CACHE_DIR")


def test_a_folder_of_another_user_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    for owner, refused in ((os.geteuid(), False), (0, False), (os.geteuid() + 4321, True)):
        status = SimpleNamespace(st_mode=0o40755, st_uid=owner)
        with monkeypatch.context() as patch:
            patch.setattr("fastdens.kernels.caches.os.stat", lambda folder, status=status: status)
            patch.setattr("fastdens.kernels.caches.os.path.isdir", lambda folder: True)
            if refused:
                with pytest.raises(PermissionError, match="TRITON_CACHE_DIR"):
                    check_cache("TRITON_CACHE_DIR")
            else:
                check_cache("TRITON_CACHE_DIR")


def test_nothing_is_compiled_into_a_shared_folder(tmp_path):
    tmp_path.chmod(0o777)
    code = "import torch, fastdens as fd; fd.GaussianMixtures(1).fit(fd.RaggedBatch.from_list([torch.ones(9, 2)]))"
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "TRITON_INTERPRET": "0"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stderr.splitlines()[-1].startswith("PermissionError: NUMBA_CACHE_DIR is")
    assert not list(tmp_path.iterdir())
