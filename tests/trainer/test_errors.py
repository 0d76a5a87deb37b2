"""How a program of the trainer ends."""

from __future__ import annotations

import subprocess
import sys

import pytest

ABORTS_IN_TEARDOWN = """
import atexit, os, sys
from trainer.errors import TrainerError, main

class Thread:  # stands for a thread of C++ that needs the interpreter while it is torn down
    def __del__(self, abort=os.abort):
        abort()

sys.modules["kept until the end"] = Thread()
atexit.register(print, "the exit handlers ran")

def program():
    print("said before the end")
    {end}

main(program)
"""


@pytest.mark.parametrize(
    ("end", "code"), [("return 75", 75), ("return None", 0), ("raise TrainerError('no', fix='do', code=3)", 3)]
)
def test_a_program_says_its_exit_code_whatever_its_threads_do_in_teardown(end: str, code: int) -> None:
    done = subprocess.run([sys.executable, "-c", ABORTS_IN_TEARDOWN.format(end=end)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (code, "said before the end\nthe exit handlers ran\n")
    assert done.stderr == ("error: no\n  fix:   do\n" if code == 3 else "")
