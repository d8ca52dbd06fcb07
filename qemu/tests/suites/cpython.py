#!/usr/bin/python3.11
"""Runs the modules of CPython's own tests that it is given, each in a process of its
own, and says what became of every test method in a line:

    @ TAB name TAB pass|fail|skip|late|killed TAB what was seen

A process that ends in the middle of a test, or stays silent for too long, is started
again without the tests that have been run.
"""
import os, select, signal, subprocess, sys, traceback, unittest

SILENCE = 150  # seconds
HERE = os.path.abspath(__file__)


def one_line(text, limit=300):
    return " ".join(str(text).split())[-limit:]


class Reporter(unittest.TestResult):
    """Says on descriptor `out` what happens; children that tests fork stay silent."""

    def __init__(self, out):
        super().__init__()
        self.out, self.process, self.verdict = out, os.getpid(), None

    def say(self, *fields):
        if os.getpid() == self.process:
            os.write(self.out, ("\t".join(map(one_line, fields)) + "\n").encode())

    def startTest(self, test):
        super().startTest(test)
        self.verdict = None
        self.say("start", name_of(test))

    def stopTest(self, test):
        super().stopTest(test)
        self.say("@", name_of(test), *(self.verdict or ("pass", "")))

    def conclude(self, test, outcome, why):
        if not hasattr(test, "_testMethodName"):
            # The fixture of a class or of the module.
            self.say("@", name_of(test), outcome, why)
        elif self.verdict is None or self.verdict[0] == "skip":
            self.verdict = (outcome, why)

    def addError(self, test, error):
        last = traceback.format_exception(*error)[-2:]
        self.conclude(test, "fail", " ".join(last))

    addFailure = addError

    def addSubTest(self, test, subtest, error):
        if error is not None:
            self.addError(test, error)

    def addSkip(self, test, reason):
        self.conclude(test, "skip", reason)

    def addUnexpectedSuccess(self, test):
        self.conclude(test, "fail", "unexpected success")


def name_of(test):
    return test.id().removeprefix("test.")


def without(suite, done):
    kept = [
        without(each, done) if isinstance(each, unittest.TestSuite) else each
        for each in suite
        if isinstance(each, unittest.TestSuite) or name_of(each) not in done
    ]
    return type(suite)(kept)


def inside(module, done):
    """The process that runs a module."""
    out = os.dup(1)
    null = os.open("/dev/null", os.O_WRONLY)
    os.dup2(null, 1)
    reporter = Reporter(out)
    from test import support

    support.use_resources = ()  # neither the internet nor much time or disk
    support.verbose = 0
    # For emulated processors.
    support.LOOPBACK_TIMEOUT, support.SHORT_TIMEOUT = 30.0, 90.0
    try:
        suite = unittest.defaultTestLoader.loadTestsFromName("test." + module)
        without(suite, done).run(reporter)
    except unittest.SkipTest as reason:
        reporter.say("@", module, "skip", reason)
    reporter.say("end")
    os._exit(0)


def attempt(module, done):
    """Runs what is left of a module; whether nothing is left after that."""
    where = f"/tmp/{module}-{len(done)}"
    os.mkdir(where)
    errors = open(where + ".errors", "w+b")
    child = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-X", "faulthandler", HERE, "--inside", module, *done],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=errors,
        cwd=where,
        start_new_session=True,
    )
    rest, current, outcome = b"", None, "killed"
    while True:
        if not select.select([child.stdout], [], [], SILENCE)[0]:
            outcome = "late"
            break
        data = os.read(child.stdout.fileno(), 65536)
        if not data:
            break
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            fields = line.decode(errors="replace").split("\t")
            if fields[0] == "end":
                outcome = None
            elif fields[0] == "start":
                current = fields[1]
            else:
                print("\t".join(fields), flush=True)
                done.append(fields[1])
                current = None
        if outcome is None:
            break
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except OSError:
        pass
    code = child.wait()
    if outcome is None:
        return True
    errors.seek(0)
    seen = one_line(errors.read().decode(errors="replace"))
    name = current or f"{module} (between tests, {len(done)})"
    print("@", name, outcome, f"{code} {seen}", sep="\t", flush=True)
    done.append(name)
    return current is None


# Children that tests start anew import this file, too: as another module.
if __name__ == "__main__":
    if sys.argv[1] == "--inside":
        inside(sys.argv[2], sys.argv[3:])
    for module in sys.argv[1:]:
        done = []
        while not attempt(module, done):
            pass
