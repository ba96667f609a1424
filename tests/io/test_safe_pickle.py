"""Pickles of arrays: what is read is what Python reads, and nothing that a file asks for runs."""

from __future__ import annotations

import copyreg
import io
import os
import pickle
import pickletools
import re
import resource
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from fastdens.io.safe_pickle import (
    LONGEST_NAME,
    MOST_MEMORY_PER_BYTE,
    MOST_NAME_BYTES,
    PickleError,
    flat_array,
    read_pickle,
    read_pickled_dict,
    unpickle,
)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "x.pickle"


def refused(file, content=None):
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(PickleError) as caught:
        read_pickle(file)
    message = str(caught.value)
    assert message.startswith(str(file)) and "\n" not in message and len(message) < 400 + len(str(file))
    assert message.endswith(".") and not re.search(r"\. [A-Z]", message)
    return message


def values(rng):
    return {
        "data": rng.integers(0, 256, (7, 5, 5, 3), dtype=np.uint8),
        "fortran": np.asfortranarray(rng.normal(size=(4, 3))),
        "swapped": rng.integers(0, 99, 5).astype(">i4"),
        "half": rng.normal(size=3).astype(np.float16),
        "complex": rng.normal(size=2) + 1j,
        "booleans": np.array([True, False]),
        "names": np.array(["ant", "bumblebee"]),
        "bytes": np.array([b"ant", b""]),
        "objects": np.array([1, None, "x", 2.5], object),
        "nothing": np.zeros((0, 3)),
        "0-d": np.array(2.5),
        "strided": rng.normal(size=(6, 4))[::2, 1:],
        "list": [rng.random(3) for _ in range(4)],
        "scalars": [np.int64(-3), np.float32(1.5), np.bool_(True), np.str_("x")],
        "plain": [None, True, False, 0, -1, 300, 70_000, -(2**31), 2**200, 1.5, "é\n'", b"\xff\n", b"", (), (1,)],
        "nested": {"a": [{"b": ([],)}], 5: {}, "c": (1, 2, 3, 4)},
    }


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_what_is_read_is_what_python_reads(rng, file, protocol):
    content = pickle.dumps(values(rng), protocol)
    file.write_bytes(content)
    found, expected = read_pickle(file), pickle.loads(content)
    np.testing.assert_equal(found, expected)
    for name, value in expected.items():
        assert type(found[name]) is type(value)
        if isinstance(value, np.ndarray):
            assert found[name].dtype == value.dtype and found[name].shape == value.shape
    assert list(map(type, found["scalars"])) == list(map(type, expected["scalars"]))


def test_an_object_that_occurs_twice_is_one(rng, file):
    x = rng.random(3)
    file.write_bytes(pickle.dumps([x, x, [x]]))
    one, other, (third,) = read_pickle(file)
    assert one is other is third


def test_pickles_of_python_2_are_read(file):
    # {'data': numpy.array([258, 3], 'u2'), u'labels': [1]}, protocol 2, as Python 2 with numpy 1 wrote it.
    file.write_bytes(
        b"\x80\x02}q\x00(U\x04dataq\x01cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85U\x01b\x87R"
        b"(K\x01K\x02\x85cnumpy\ndtype\nq\x04U\x02u2K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89U\x04\x02\x01\x03\x00tbX\x06\x00\x00\x00labelsq\x05]K\x01au."
    )
    found = read_pickled_dict(file)
    np.testing.assert_array_equal(found["data"], [258, 3])
    assert found["data"].dtype == np.uint16 and found["labels"] == [1]


def test_numpy_1_and_2_name_their_functions_differently(rng, file):
    content = pickle.dumps({b"a": rng.random(3)}, 2)
    for one, other in ((b"numpy._core", b"numpy.core"), (b"numpy.core", b"numpy._core")):
        file.write_bytes(content.replace(one, other))
        np.testing.assert_array_equal(read_pickled_dict(file)["a"], pickle.loads(content)[b"a"])


class Calls:
    """An object whose pickle calls a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class Ran:
    """A class of the tests, which leaves a file behind when it is made."""

    def __init__(self, path):
        Path(path).touch()

    def __setstate__(self, state):
        Path(state["path"]).touch()


def touched(path):
    return f"open({str(path)!r}, 'w').close()"


def touch(path):
    return f"touch {path}".encode()


def text(content):
    """An instruction that puts a text on the stack."""
    return b"X" + struct.pack("<I", len(content)) + content


def hidden_in_an_array(call):
    return np.array([call, 1], object)


def state_of_an_array(path):
    """An array whose state calls."""
    return b"cnumpy\nndarray\n(K\x00\x85tR" + pickle.dumps(Calls(os.system, f"touch {path}"), 2)[2:-1] + b"b."


def inst(path):
    return b"(S'" + touch(path) + b"'\nios\nsystem\n."


def stack_global(path):
    return b"\x80\x04\x8c\x05posix\x8c\x06system\x93" + text(touch(path)) + b"\x85R."


def extension(path):
    copyreg.add_extension("posix", "system", 77)
    try:
        return pickle.dumps(os.system, 2)[:-1] + text(touch(path)) + b"\x85R."
    finally:
        copyreg.remove_extension("posix", "system", 77)


def new_object(path):
    return b"\x80\x02c" + f"{__name__}\nRan\n".encode() + text(str(path).encode()) + b"\x85\x81."


def nested(path):
    """getattr(__import__("os"), "system")("touch ...")."""
    return pickle.dumps(Calls(getattr, Calls(__import__, "os"), "system"), 2)[:-1] + text(touch(path)) + b"\x85R."


def before_an_honest_dict(path):
    return pickle.dumps(Calls(os.system, f"touch {path}"), 2)[:-1] + b"0" + pickle.dumps({"data": []}, 2)[2:]


RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n"
PAYLOADS = {
    "system": lambda path: pickle.dumps(Calls(os.system, f"touch {path}")),
    "system, protocol 0": lambda path: pickle.dumps(Calls(os.system, f"touch {path}"), 0),
    "eval": lambda path: pickle.dumps(Calls(eval, touched(path))),
    "exec": lambda path: pickle.dumps(Calls(exec, touched(path))),
    "popen": lambda path: pickle.dumps(Calls(subprocess.Popen, ["touch", str(path)])),
    "open": lambda path: pickle.dumps(Calls(open, str(path), "w")),
    "in an array of objects": lambda path: pickle.dumps(hidden_in_an_array(Calls(os.system, f"touch {path}"))),
    "in a dict": lambda path: pickle.dumps({"data": np.zeros(3), "labels": [Calls(os.system, f"touch {path}")]}),
    "before an honest dict": before_an_honest_dict,
    "nested reduce": nested,
    "a class": lambda path: pickle.dumps(Calls(Ran, str(path))),
    "numpy's rundocs": lambda path: b"cnumpy.testing\nrundocs\n" + text(str(path).encode()) + b"\x85R.",
    "numpy's load": lambda path: b"cnumpy\nload\n" + text(str(path).encode()) + b"N\x88\x87R.",
    "numpy's f2py": lambda path: b"cnumpy.f2py.diagnose\nrun_command\n" + text(touch(path)) + b"\x85R.",
    "a dotted attribute": lambda path: b"\x80\x04\x8c\x05numpy\x8c\x0fdtype.__class__\x93.",
    "a dotted attribute of a module": lambda path: b"\x80\x04\x8c\x05numpy\x8c\x09os.system\x93.",
    "_codecs.encode of another codec": lambda path: b"c_codecs\nencode\n(S'x'\nS'idna'\ntR.",
    "_codecs.lookup": lambda path: b"c_codecs\nlookup\n(S'idna'\ntR.",
    "instruction INST": inst,
    "instruction OBJ": lambda path: b"(cos\nsystem\n" + text(touch(path)) + b"o.",
    "instruction STACK_GLOBAL": stack_global,
    "instruction NEWOBJ": new_object,
    "instruction EXT1": extension,
    "persistent id": lambda path: b"Ptouch\n.",
    "binary persistent id": lambda path: b"K\x01Q.",
    "buffer outside": lambda path: b"\x80\x05\x97.",
    "state of an array": state_of_an_array,
    "subclass of an array": lambda path: RECONSTRUCT + b"(cnumpy\nmemmap\n(I0\ntS'b'\ntR.",
    "array of another class": lambda path: RECONSTRUCT + b"(cnumpy\ndtype\n(I0\ntS'b'\ntR.",
    "array of a length": lambda path: RECONSTRUCT + b"(cnumpy\nndarray\n(I99999999999\ntS'b'\ntR.",
    "call of ndarray": lambda path: b"cnumpy\nndarray\n((I99999999999\ntS'b'\ntR.",
    "call of text": lambda path: b"S'os.system'\n)R.",
    "structured dtype": lambda path: pickle.dumps(np.zeros(2, [("a", "f4"), ("b", "O")])),
    "dtype with metadata": lambda path: pickle.dumps(np.zeros(2, "M8[s]")),
    "dtype of an object": lambda path: b"cnumpy\ndtype\n(cos\nsystem\ntR.",
    "dtype of a subarray": lambda path: b"cnumpy\ndtype\n(S'(9999999,)f8'\nI0\nI1\ntR.",
    "set": lambda path: pickle.dumps({1, 2}),
    "function": lambda path: pickle.dumps(os.getcwd),
    "bytes of a length": lambda path: b"cbuiltins\nbytes\n(I99999999999\ntR.",
    "key that nests": lambda path: b"}" + b")" + b"\x85" * 100_000 + b"Ns.",
}


@pytest.mark.parametrize("name", PAYLOADS)
def test_nothing_runs(file, tmp_path, name):
    mark = tmp_path / "ran"
    refused(file, PAYLOADS[name](mark))
    assert not mark.exists()


@pytest.mark.parametrize(
    "name", ["system", "eval", "exec", "open", "in an array of objects", "a class", "instruction INST"]
)
def test_the_same_payloads_run_in_pythons_reader(tmp_path, name):
    mark = tmp_path / "ran"
    pickle.loads(PAYLOADS[name](mark))
    assert mark.exists()


def test_every_instruction_that_is_no_container_and_no_array_is_refused(file):
    codes = {opcode.name: opcode.code.encode("latin1") for opcode in pickletools.opcodes}
    refused_ones = {"PERSID", "BINPERSID", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4"}
    refused_ones |= {"EMPTY_SET", "ADDITEMS", "FROZENSET", "NEXT_BUFFER", "READONLY_BUFFER"}
    assert refused_ones < codes.keys()
    for name in refused_ones:
        argument = b"posix\nsystem\n" if name in ("INST", "PERSID") else bytes(4)
        assert f"asks for the instruction {name}" in refused(file, b"(NN" + codes[name] + argument + b".")


WATCHED = """
import io, sys
import numpy as np
from fastdens.io.safe_pickle import PickleError, unpickle
contents, events, watching = np.load(sys.argv[1]), [], False

def note(event, arguments):
    # The number of an object is asked for where an error is described.
    if watching and event != "builtins.id":
        events.append(f"{event} {arguments}"[:200])

sys.addaudithook(note)

def read(part):
    try:
        unpickle(io.BytesIO(contents[f"{part:d}"].tobytes()), len(contents[f"{part:d}"]), "x")
    except PickleError:
        pass

for part in range(int(sys.argv[2])):
    read(part)
names = contents.files
contents = {name: contents[name] for name in names}
watching = True
for part in range(len(names)):
    read(part)
watching = False
# Python's own reader, so that the watch is known to see.
import pickle
hostile = pickle.dumps(np.dtype("f4"))
watching = True
pickle.loads(hostile)
watching = False
print(len(names), *events, sep="\\n")
"""


def test_the_interpreter_imports_opens_and_runs_nothing(rng, tmp_path):
    """As Python's own audit events tell, for every payload and for pickles that were changed at random."""
    honest = [pickle.dumps(values(rng), protocol) for protocol in range(6)]
    hostile = [payload(tmp_path / "ran") for payload in PAYLOADS.values()]
    for _ in range(300):
        changed = bytearray(honest[rng.integers(6)])
        for at in rng.integers(0, len(changed), rng.integers(1, 6)):
            changed[at] = rng.choice(list(b"cR\x93bio\x81Q\x82.0h")) if rng.random() < 0.5 else rng.integers(256)
        hostile.append(bytes(changed))
    parts = {str(at): np.frombuffer(content, np.uint8) for at, content in enumerate(honest + hostile)}
    np.savez(tmp_path / "pickles.npz", **parts)
    child = [sys.executable, "-W", "ignore", "-c", WATCHED, tmp_path / "pickles.npz", str(len(honest))]
    done = subprocess.run(child, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    n_read, *events = done.stdout.splitlines()
    assert int(n_read) == len(parts)
    assert len(events) == 1 and events[0].startswith("pickle.find_class ('numpy', 'dtype')"), events
    assert not (tmp_path / "ran").exists()


def test_what_is_refused_is_named(file):
    assert "asks for 'posix.system', but only arrays" in refused(file, pickle.dumps(os.system))
    assert "asks for 'collections.OrderedDict'" in refused(file, b"ccollections\nOrderedDict\n.")
    assert "asks for the instruction INST" in refused(file, inst("x"))


NEW_ARRAY = RECONSTRUCT + b"(cnumpy\nndarray\n(I0\ntS'b'\ntR"
# An array of the objects in the list that is stored under 0.
NEW_OBJECTS = NEW_ARRAY + b"(I1\n(I100000\ntcnumpy\ndtype\n(S'O'\nI0\nI1\ntRI00\ng0\ntb"
# An array of the bytes that are stored under 0.
SAME_BYTES = b"cnumpy.core.numeric\n_frombuffer\n(g0\ncnumpy\ndtype\n(S'u1'\nI0\nI1\ntR(I1048576\ntS'C'\ntR"


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x04\x8e" + struct.pack("<Q", 1 << 62) + b"x",  # BINBYTES8
        b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b"x",  # BYTEARRAY8
        b"\x80\x03B" + struct.pack("<I", 0xFFFFFFFF) + b"x",  # BINBYTES
        b"\x80\x02X" + struct.pack("<I", 0xFFFFFFFF) + b"x",  # BINUNICODE
        b"\x80\x02\x8b" + struct.pack("<i", 0x7FFFFFFF) + b"x",  # LONG4
        b"\x80\x04\x95" + struct.pack("<Q", 1 << 62) + b"N.",  # FRAME, of which the length is not believed
        b"Nr" + struct.pack("<I", 0xFFFFFFFF) + b".",  # LONG_BINPUT, whose index is only a name
        NEW_ARRAY + b"(I1\n(I99999999999\ntcnumpy\ndtype\n(S'f8'\nI0\nI1\ntRI00\nS''\ntb.",
        # One text of a megabyte, turned into bytes a thousand times.
        b"c_codecs\nencode\np0\n0" + text(b"a" * (1 << 20)) + b"p1\n0(" + b"g0\n(g1\ntR" * 1000 + b"l.",
        # The same text as the contents of arrays.
        text(b"a" * (1 << 20)) + b"p0\n0(" + SAME_BYTES * 1000 + b"l.",
        # A list of 100,000 references, and an array of them, again and again.
        b"(" + b"N" * 100_000 + b"lp0\n0(" + NEW_OBJECTS * 200 + b"l.",
    ],
)
def test_lengths_are_not_believed(file, content):
    """Whether it is read or refused, it takes no more memory than a few times the file."""
    file.write_bytes(content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        read_pickle(file)
    except PickleError:
        refused(file)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


IN_A_LIST = {
    "empty dicts": b"}",
    "empty lists": b"]",
    "dicts of one": b"}K\x01Ns",
    "lists of one": b"]Na",
    "names of what was stored": b"\x94",
    "tuples in tuples": b"\x85",
    "dtypes": b"h\x00h\x01R",
    "arrays": b"h\x02h\x03R",
    "globals": b"h\x04h\x05\x93",
    "text": b"X\x02\x00\x00\x00\xc3\xa9",
    "floats": b"G?\xf0\x00\x00\x00\x00\x00\x01",
}
STORED = b"cnumpy\ndtype\nq\x000(S'f4'\nI0\nI1\ntq\x010" + RECONSTRUCT + b"q\x020(cnumpy\nndarray\n(I0\ntS'b'\ntq\x030"
STORED += b"X\x05\x00\x00\x00numpyq\x040X\x05\x00\x00\x00dtypeq\x050"


@pytest.mark.parametrize("name", IN_A_LIST)
def test_a_byte_takes_no_more_memory_than_is_stated(name):
    content = STORED + b"(N" + IN_A_LIST[name] * (50_000 // len(IN_A_LIST[name])) + b"l."
    tracemalloc.start()
    try:
        found = unpickle(io.BytesIO(content), len(content), "x")
        assert isinstance(found, list)
        assert tracemalloc.get_traced_memory()[1] < MOST_MEMORY_PER_BYTE * len(content) + (1 << 16)
    finally:
        tracemalloc.stop()


def test_keys_whose_hashes_a_file_chose_are_refused(file):
    """Integers that are equal modulo 2^61 - 1 have one hash: 100,000 of them in a dict take minutes."""
    keys = [at * ((1 << 61) - 1) for at in range(1, 30)]
    assert len({*map(hash, keys)}) == 1
    assert "a key of more than 64 bits" in refused(file, pickle.dumps(dict.fromkeys(keys)))
    file.write_bytes(pickle.dumps({-5: 1, 2**63: 2, "a": 3}))
    assert read_pickle(file) == {-5: 1, 2**63: 2, "a": 3}


def test_a_name_that_occurs_often_takes_no_more_memory_than_is_stated():
    name = "a" * LONGEST_NAME
    assert flat_array([name] * 100, "x").nbytes == 400 * LONGEST_NAME
    with pytest.raises(PickleError, match=r"labels of x would take 2,000,000,000 bytes as an array of names"):
        flat_array([name] * 500_000, "labels of x")
    assert 500_000 * 4 * LONGEST_NAME > MOST_NAME_BYTES


def test_depth_and_references_that_double_do_no_harm(file):
    file.write_bytes(b"]" * 500_000 + b"a" * 499_999 + b".")
    found = read_pickle(file)
    assert flat_array_is_refused(found)
    # Each list holds the one before twice: 2^200 leaves, if anything followed them.
    file.write_bytes(b"]N" + b"a" + b"".join(b"p%d\n0(g%d\ng%d\nl" % (i, i, i) for i in range(200)) + b".")
    assert flat_array_is_refused(read_pickle(file))
    # A list that holds itself.
    file.write_bytes(b"]p0\ng0\na.")
    assert flat_array_is_refused(read_pickle(file))


def flat_array_is_refused(value):
    with pytest.raises(PickleError, match="no list of numbers or names"):
        flat_array(value, "labels of x")
    return True


def test_integers_that_no_array_holds_are_refused():
    for values in ([1, 2**70], ["a", 10**5000], (-(2**64),)):
        with pytest.raises(PickleError, match="labels of x has integers of more than 64 bits"):
            flat_array(values, "labels of x")
    np.testing.assert_array_equal(flat_array([2**64 - 1], "x"), np.array([2**64 - 1]))


def test_flat_arrays_are_those_of_numbers_and_names(rng):
    for value in ([1, 2], (1.5, 2), ["a", "b"], np.array([1, 2], object), [np.int64(3)], []):
        np.testing.assert_array_equal(flat_array(value, "x"), np.array(list(value)))
    for value in ({}, 3, [[1]], [None], np.full((2, 2), None), ["a" * 10**6, ""]):
        assert flat_array_is_refused(value)


# Python's own, of a text with a backslash in it.
@pytest.mark.filterwarnings("ignore:invalid escape sequence")
def test_damaged_pickles_are_refused_or_read(rng, file):
    for protocol in (0, 2, 5):
        whole = pickle.dumps(values(rng), protocol)
        for _ in range(150):
            changed = bytearray(whole[: rng.integers(1, len(whole))] if rng.random() < 0.3 else whole)
            for _ in range(rng.integers(1, 4)):
                changed[rng.integers(len(changed))] = rng.integers(256)
            file.write_bytes(changed)
            try:
                read_pickle(file)
            except PickleError:
                refused(file)


def test_files_that_are_no_pickle(file):
    assert "damaged or cut off" in refused(file, b"\xff\xfe text")
    assert "damaged or cut off" in refused(file, pickle.dumps([1, 2])[:-1])
    file.write_bytes(pickle.dumps([1]))
    with pytest.raises(PickleError, match="holds list, not a dict"):
        read_pickled_dict(file)
    file.write_bytes(b"")
    with pytest.raises(ValueError, match="is empty"):
        read_pickle(file)
    with pytest.raises(FileNotFoundError, match="there is no file"):
        read_pickle(file.with_name("y.pickle"))


def test_no_module_is_imported(file):
    """Not even one that exists."""
    assert "this" not in sys.modules
    refused(file, b"cthis\ns\n.")
    assert "this" not in sys.modules
