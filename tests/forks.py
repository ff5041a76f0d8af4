"""Calls of a module's ``main``, each in a process that is forked after the imports.

Such a call may kill its process; importing takes longer than most of them.
"""

import json
import os
import runpy
import signal
import subprocess
import sys
import traceback
from pathlib import Path

SECONDS = 300


class Forks:
    """A process that has imported a module, and calls its ``main`` in forks of itself.

    The module may import JAX, which has started no thread before it computes.
    """

    def __init__(self, path):
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "JAX_PLATFORMS": "cpu",
                "PYTHONPATH": str(Path(__file__).parents[1]),
            },
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.communicate()

    def __call__(self, *arguments):
        """The exit code, and what was said."""
        said = ""
        self._process.stdin.write(json.dumps([str(one) for one in arguments]) + "\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith("ended "):
                return int(line.split()[1]), said
            said += line
        raise EOFError(said)


def _call(main, arguments):
    signal.alarm(SECONDS)
    code = 1
    try:
        main(*arguments)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        # Not the end of the process that was forked, which reads on.
        os._exit(code)


def _serve(path):
    main = runpy.run_path(path)["main"]
    for line in sys.stdin:
        process = os.fork()
        if not process:
            _call(main, json.loads(line))
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        sys.stdout.write(f"ended {code}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve(sys.argv[1])
