"""The library in processes that are not ours: threads, children, other people's handlers, traps that are not ours."""

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from harness.host.isa.patching import CPUID, UD2
from harness.host.isa.shown import REFUSED
from tests.shown_kit import build, faulting, on_x86_64, run, with_compiler

pytestmark = [on_x86_64, with_compiler]

# A program with a CPUID instruction of its own, at a place that can be found in the file. It is CPUID or UD2, and the
# bytes around it say where. `probe` prints ebx of leaf 7; the rest is what a test lets it do.
PROGRAM = r"""
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <setjmp.h>
static void cpuid(uint32_t leaf, uint32_t sub, uint32_t a[4]) {
  __asm__ volatile("jmp 1f\n .ascii \"HERE>\"\n 1: INSTRUCTION\n jmp 2f\n .ascii \"<HERE\"\n 2:\n"
    : "=a"(a[0]), "=b"(a[1]), "=c"(a[2]), "=d"(a[3]) : "a"(leaf), "c"(sub));
}
static void probe(const char *who) { uint32_t a[4]; cpuid(7, 0, a); printf("%s %08x\n", who, a[1]); fflush(stdout); }
static void *thread(void *who) { probe(who); return NULL; }
static void in_thread(const char *who) {
  pthread_t t; pthread_create(&t, NULL, thread, (void *)who); pthread_join(t, NULL);
}
static sigjmp_buf back;
static void jump(int number) { (void)number; siglongjmp(back, 1); }
static void told(int number) { printf("told %d\n", number); fflush(stdout); _exit(7); }
static void told_more(int number, siginfo_t *info, void *context) {
  (void)context; printf("told %d code %d\n", number, info->si_code); fflush(stdout); _exit(8);
}
static void asks(int number) { (void)number; probe("handler"); }
int main(int argc, char **argv) { (void)argc; const char *what = argv[1]; BODY return 0; }
"""
BODIES = r"""
  if (!strcmp(what, "plain")) probe("main");
  if (!strcmp(what, "thread")) { in_thread("thread"); probe("main"); }
  if (!strcmp(what, "fork")) {
    if (fork() == 0) { probe("child"); in_thread("child's thread"); _exit(0); }
    wait(NULL); probe("main");
  }
  if (!strcmp(what, "exec")) { execl("/proc/self/exe", "program", "plain", NULL); }
  if (!strcmp(what, "handlers")) {
    struct sigaction a = {0}; a.sa_handler = told; sigaction(SIGSEGV, &a, NULL); sigaction(SIGILL, &a, NULL);
    signal(SIGSEGV, told); signal(SIGILL, told); probe("main");
    struct sigaction before; sigaction(SIGSEGV, NULL, &before); printf("kept %d\n", before.sa_handler == told);
  }
  if (!strcmp(what, "segv-told")) { signal(SIGSEGV, told); probe("main"); *(volatile int *)8 = 1; }
  if (!strcmp(what, "segv-told-more")) {
    struct sigaction a = {0}; a.sa_sigaction = told_more; a.sa_flags = SA_SIGINFO; sigaction(SIGSEGV, &a, NULL);
    probe("main"); *(volatile int *)8 = 1;
  }
  if (!strcmp(what, "segv")) { probe("main"); *(volatile int *)8 = 1; }
  if (!strcmp(what, "segv-ignored")) { signal(SIGSEGV, SIG_IGN); probe("main"); *(volatile int *)8 = 1; }
  if (!strcmp(what, "noncanonical")) { probe("main"); *(volatile int *)0x8000000000000000 = 1; }
  if (!strcmp(what, "raise-ill")) { probe("main"); raise(SIGILL); }
  if (!strcmp(what, "raise-segv")) { probe("main"); raise(SIGSEGV); }
  if (!strcmp(what, "trap")) { probe("main"); __builtin_trap(); }
  if (!strcmp(what, "jump")) {
    signal(SIGILL, jump); signal(SIGSEGV, jump);
    if (!sigsetjmp(back, 1)) { __builtin_trap(); } else { printf("jumped\n"); }
    if (!sigsetjmp(back, 1)) { *(volatile int *)8 = 1; } else { printf("jumped\n"); }
    probe("main");
  }
  if (!strcmp(what, "blocked")) {
    sigset_t all; sigfillset(&all); pthread_sigmask(SIG_SETMASK, &all, NULL); probe("main");
    sigprocmask(SIG_BLOCK, &all, NULL); in_thread("thread");
  }
  if (!strcmp(what, "in-handler")) {
    struct sigaction a = {0}; a.sa_handler = asks; sigfillset(&a.sa_mask); sigaction(SIGUSR1, &a, NULL); raise(SIGUSR1);
  }
  if (!strcmp(what, "small-stack")) {
    stack_t s = {.ss_sp = malloc(16384), .ss_size = 16384}; sigaltstack(&s, NULL); probe("main"); in_thread("thread");
  }
  if (!strcmp(what, "garbage-ecx")) { uint32_t a[4]; cpuid(1, 0x12345, a); printf("fma %u\n", a[2] >> 12 & 1); }
  if (!strcmp(what, "high-bits")) {
    uint64_t a, b, c = 0xffffffff00000000, d = ~0ull; a = 0xffffffff00000007;
    __asm__ volatile("jmp 1f\n .ascii \"HERE>\"\n 1: INSTRUCTION\n jmp 2f\n .ascii \"<HERE\"\n 2:\n"
      : "+a"(a), "=b"(b), "+c"(c), "+d"(d));
    printf("%d\n", (a | b | c | d) >> 32 == 0);
  }
"""
# what is kept of ebx in leaf 7, and of ecx in leaf 1 (no FMA)
KEPT = 0x0000FF28
KEEP = f"7:0:ffffffff:{KEPT:x}:ffffffff:ffffffff 1:0:ffffffff:ffffffff:ffffefff:ffffffff"
Run = Callable[..., CompletedProcess[str]]


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The program with CPUID in it, and with UD2, each with the list of its sites."""
    made = {}
    for way, instruction in (("faulting", "cpuid"), ("patched", "ud2")):
        folder = tmp_path_factory.mktemp(way)
        source = PROGRAM.replace("BODY", BODIES).replace("INSTRUCTION", instruction)
        made[way] = build(folder, source)
        data, at, sites = made[way].read_bytes(), -1, []
        wanted = b"HERE>" + (CPUID if instruction == "cpuid" else UD2)
        while (at := data.find(wanted, at + 1)) >= 0:
            sites.append(at + 5)
        assert len(sites) >= 2, "cpuid() and the inline one"
        (folder / "sites").write_text("".join(f"{site:x} program\n" for site in sites))
    return made


@pytest.fixture(params=[pytest.param("faulting", marks=faulting), "patched"])
def shown(request: pytest.FixtureRequest, library: Path, programs: dict[str, Path]) -> Run:
    """Runs the program with the library preloaded, in one of the two ways."""
    way = request.param

    def call(what: str, **variables: str) -> CompletedProcess[str]:
        program = programs[way]
        mine = {
            "LD_PRELOAD": str(library),
            "HARNESS_CPUID_WAY": way,
            "HARNESS_CPUID_KEEP": KEEP,
            "HARNESS_CPUID_SITES": str(program.parent / "sites"),
        }
        return run(program, mine | variables, what)

    return call


@pytest.fixture(scope="module")
def real(programs: dict[str, Path]) -> int:
    """What ebx of leaf 7 is on this machine."""
    return int(run(programs["faulting"], {}, "plain").stdout.split()[1], 16)


def lines(done: CompletedProcess[str]) -> dict[str, int]:
    """Who saw what."""
    return {line.rpartition(" ")[0]: int(line.rpartition(" ")[2], 16) for line in done.stdout.splitlines()}


@pytest.mark.parametrize(
    ("what", "who"),
    [
        ("plain", ["main"]),
        ("thread", ["thread", "main"]),
        ("fork", ["child", "child's thread", "main"]),
        ("exec", ["main"]),
        ("blocked", ["main", "thread"]),
        ("in-handler", ["handler"]),
        ("small-stack", ["main", "thread"]),
    ],
)
def test_a_mask_holds_in_threads_children_and_handlers(shown: Run, real: int, what: str, who: list[str]) -> None:
    done = shown(what)
    assert (done.returncode, lines(done)) == (0, dict.fromkeys(who, real & KEPT)), done.stderr
    assert done.stderr.startswith("harness cpuid: CPUID ") and "2 leaves are masked" in done.stderr


def test_with_nothing_masked_the_answers_are_those_of_the_cpu(shown: Run, real: int) -> None:
    assert lines(shown("plain", HARNESS_CPUID_KEEP="")) == {"main": real}


def test_a_leaf_without_subleaves_is_masked_whatever_is_in_ecx(shown: Run) -> None:
    assert shown("garbage-ecx").stdout == "fma 0\n"


def test_the_upper_halves_of_the_registers_are_cleared_as_by_the_instruction(shown: Run) -> None:
    assert shown("high-bits").stdout == "1\n"


def test_others_handlers_come_second_and_get_what_is_theirs(shown: Run, real: int) -> None:
    done = shown("handlers")
    assert done.stdout == f"main {real & KEPT:08x}\nkept 1\n", (
        "a handler was installed, and CPUID is answered all the same"
    )
    for what, said, code in (("segv-told", "told 11", 7), ("segv-told-more", "told 11 code 1", 8)):
        done = shown(what)
        assert (done.stdout.splitlines()[1], done.returncode) == (said, code)
    assert shown("jump").stdout == f"jumped\njumped\nmain {real & KEPT:08x}\n"


@pytest.mark.parametrize(
    ("what", "signal"),
    [("segv", 11), ("segv-ignored", 11), ("noncanonical", 11), ("raise-segv", 11), ("raise-ill", 4), ("trap", 4)],
)
def test_what_would_have_ended_a_process_still_ends_it(shown: Run, real: int, what: str, signal: int) -> None:
    """A UD2 that was no CPUID is a trap that a compiler put in, and never answered."""
    done = shown(what)
    assert (done.returncode, done.stdout) == (-signal, f"main {real & KEPT:08x}\n")


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"HARNESS_CPUID_WAY": "somehow"}, 'HARNESS_CPUID_WAY is "somehow"'),
        ({"HARNESS_CPUID_KEEP": "7:0:1"}, "HARNESS_CPUID_KEEP is malformed"),
        ({"HARNESS_CPUID_KEEP": "7:0:x:0:0:0"}, "HARNESS_CPUID_KEEP is malformed"),
        ({"HARNESS_CPUID_SITES": "/nowhere"}, "HARNESS_CPUID_SITES: /nowhere: No such file"),
        ({"HARNESS_CPUID_SITES": "/dev/null"}, "/dev/null: lists no site"),
    ],
)
def test_what_cannot_be_done_ends_the_process_before_it_does_anything(
    library: Path, programs: dict[str, Path], variables: dict[str, str], said: str
) -> None:
    mine = {"LD_PRELOAD": str(library), "HARNESS_CPUID_WAY": "patched", "HARNESS_CPUID_KEEP": KEEP}
    done = run(programs["patched"], mine | variables, "plain")
    assert (done.returncode, done.stdout) == (REFUSED, "")
    assert said in done.stderr


def test_where_the_kernel_cannot_let_cpuid_fault_the_process_ends(library: Path, programs: dict[str, Path]) -> None:
    mine = {"LD_PRELOAD": str(library), "HARNESS_CPUID_WAY": "faulting", "HARNESS_CPUID_KEEP": KEEP}
    done = run(programs["faulting"], mine, "plain")
    if done.returncode == 0:
        pytest.skip("this kernel can")
    assert (done.returncode, done.stdout) == (REFUSED, "")
    assert "the kernel does not let CPUID fault here (arch_prctl ARCH_SET_CPUID: No such device)" in done.stderr


def test_a_process_that_was_told_nothing_is_left_alone(library: Path, programs: dict[str, Path], real: int) -> None:
    done = run(programs["faulting"], {"LD_PRELOAD": str(library)}, "handlers")
    assert (done.stdout, done.stderr) == (f"main {real:08x}\nkept 1\n", "")
