/* Answers the CPUID instruction for one process, so that the libraries in it choose another CPU's kernels.
 *
 * Preloaded (LD_PRELOAD) into processes of the bench and into nothing else. x86-64 Linux with glibc. It is told what to
 * do by the environment:
 *
 *   HARNESS_CPUID_WAY    "faulting": the kernel is asked to raise SIGSEGV at every CPUID (arch_prctl ARCH_SET_CPUID,
 *                        Intel since Ivy Bridge); the handler runs the real instruction and goes on behind it.
 *                        "patched": in copies of the engine's libraries CPUID became UD2, which raises SIGILL; the
 *                        handler answers it, and no other UD2: those are traps that compilers put in.
 *   HARNESS_CPUID_KEEP   "leaf:subleaf:eax:ebx:ecx:edx ...", in hexadecimal: the bits of each answer to keep. Leaves
 *                        that are not named stay as they are.
 *   HARNESS_CPUID_SITES  (patched) a file with a line "offset name" for every CPUID that became UD2: its offset in the
 *                        file in hexadecimal, and the file's name relative to the folder of this list.
 *
 * It says on standard error in one line what it did. Where it cannot do what it is asked for it ends the process with
 * exit code 97: a figure under a wrong instruction set is worse than none.
 *
 * What it cannot reach: code that ran before it was loaded. glibc chooses its memcpy then.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#ifndef ARCH_SET_CPUID
#define ARCH_SET_CPUID 0x1012
#endif
#define REFUSED 97
#define MOST_KEPT 64
#define MOST_SITES 1024
#define LONGEST_PATH 1024
#define VISIBLE __attribute__((visibility("default")))

static struct { uint32_t leaf, subleaf, keep[4]; } kept[MOST_KEPT];
static size_t kept_count;
static struct { uint64_t offset; const char *path; } sites[MOST_SITES];
static size_t site_count;
static int trap;                     /* SIGSEGV or SIGILL; 0 while the library does nothing */
static struct sigaction second;      /* whoever else wants that signal: it gets what is not ours */
static atomic_ulong answered;

/* What this library puts itself in front of. Looked up when first needed, which may be before start() has run. */
static void *real_sigaction, *real_pthread_sigmask, *real_sigprocmask;
static void *look_up(void **found, const char *name) { return *found ? *found : (*found = dlsym(RTLD_NEXT, name)); }
#define REAL(name) ((__typeof__(&name))look_up(&real_##name, #name))

/* --- Answering ----------------------------------------------------------------------------------------------------- */

/* 0 is the kernel's word for "CPUID faults"; the setting is the thread's own, and threads and children inherit it. */
static long set_faulting(int on) { return syscall(SYS_arch_prctl, ARCH_SET_CPUID, on ? 0L : 1L); }

static void real_cpuid(uint32_t leaf, uint32_t subleaf, uint32_t answer[4]) {
  if (trap == SIGSEGV) set_faulting(0);
  __asm__ volatile("cpuid" : "=a"(answer[0]), "=b"(answer[1]), "=c"(answer[2]), "=d"(answer[3])
                   : "a"(leaf), "c"(subleaf));
  if (trap == SIGSEGV) set_faulting(1);
}

/* Of the leaves that masks name; in the others ecx says nothing, and callers leave in it what they like. */
static int has_subleaves(uint32_t leaf) { return leaf == 7 || leaf == 0xd || (0x1d <= leaf && leaf <= 0x24); }

static void answer_cpuid(greg_t *registers) {
  uint32_t leaf = (uint32_t)registers[REG_RAX], subleaf = (uint32_t)registers[REG_RCX], answer[4];
  real_cpuid(leaf, subleaf, answer);
  for (size_t i = 0; i < kept_count; i++)
    if (kept[i].leaf == leaf && (kept[i].subleaf == subleaf || !has_subleaves(leaf)))
      for (int r = 0; r < 4; r++) answer[r] &= kept[i].keep[r];
  registers[REG_RAX] = answer[0];
  registers[REG_RBX] = answer[1];
  registers[REG_RCX] = answer[2];
  registers[REG_RDX] = answer[3];
  registers[REG_RIP] += 2; /* CPUID and UD2 are two bytes each */
  atomic_fetch_add(&answered, 1);
}

/* --- Which traps are ours --------------------------------------------------------------------------------------------*/

extern const char own_site[] __attribute__((visibility("hidden"))); /* the UD2 of harness_cpuid() */

/* Whether an address is that of a CPUID that became UD2. Where the address lies is read from /proc/self/maps: dladdr()
 * would wait for the loader's lock, which another thread may hold. Small buffers, since alternate stacks are small. */
static int is_site(uint64_t address) {
  char buffer[1024], line[LONGEST_PATH + 128];
  size_t length = 0;
  int file, found = address == (uint64_t)own_site, over = found;
  if (over || (file = open("/proc/self/maps", O_RDONLY | O_CLOEXEC)) < 0) return found;
  for (ssize_t count; !over && (count = read(file, buffer, sizeof buffer)) > 0;)
    for (ssize_t at = 0; at < count && !over; at++) {
      if (buffer[at] != '\n') {
        if (length < sizeof line - 1) line[length++] = buffer[at];
        continue;
      }
      line[length] = 0; /* from-to r-xp offset device inode path */
      length = 0;
      char *rest, *path = strchr(line, '/');
      uint64_t from = strtoull(line, &rest, 16), to = strtoull(rest + 1, &rest, 16);
      over = from <= address && address < to;
      uint64_t offset = strtoull(rest + 6, NULL, 16) + (address - from);
      for (size_t i = 0; over && path && i < site_count && !found; i++)
        found = sites[i].offset == offset && !strcmp(sites[i].path, path);
    }
  close(file);
  return found;
}

static int is_ours(const siginfo_t *info, uint64_t address) {
  const unsigned char *code = (const unsigned char *)address;
  if (info->si_code <= 0) return 0; /* sent by a process, not raised by an instruction */
  /* A general protection fault, as CPUID raises it, comes with SI_KERNEL: the code at the address is there to be read.
   * That of any other fault need not be. */
  if (address >> 56) return 0;
  if (trap == SIGSEGV) return info->si_code == SI_KERNEL && code[0] == 0x0f && code[1] == 0xa2;
  return code[0] == 0x0f && code[1] == 0x0b && is_site(address);
}

static void handler(int number, siginfo_t *info, void *context) {
  int error = errno;
  ucontext_t *state = context;
  struct sigaction next = second;
  if (is_ours(info, (uint64_t)state->uc_mcontext.gregs[REG_RIP])) {
    answer_cpuid(state->uc_mcontext.gregs);
  } else if (next.sa_handler != SIG_DFL && next.sa_handler != SIG_IGN) {
    if (next.sa_flags & SA_RESETHAND) second.sa_handler = SIG_DFL;
    if (next.sa_flags & SA_SIGINFO) next.sa_sigaction(number, info, context);
    else next.sa_handler(number);
  } else if (next.sa_handler == SIG_DFL || info->si_code > 0) {
    /* It would have ended the process, and now does: the instruction runs once more, or the signal is sent again. */
    memset(&next, 0, sizeof next);
    REAL(sigaction)(number, &next, NULL);
    if (info->si_code <= 0) raise(number);
  }
  errno = error;
}

/* --- Others that handle signals: they come second -------------------------------------------------------------------- */

VISIBLE int sigaction(int number, const struct sigaction *wanted, struct sigaction *before) {
  struct sigaction changed;
  if (!trap) return REAL(sigaction)(number, wanted, before);
  if (number == trap) {
    if (before) *before = second;
    if (wanted) second = *wanted;
    return 0;
  }
  if (wanted) {
    changed = *wanted;
    sigdelset(&changed.sa_mask, trap); /* CPUID in a handler that blocks our signal would end the process */
    wanted = &changed;
  }
  return REAL(sigaction)(number, wanted, before);
}

VISIBLE sighandler_t signal(int number, sighandler_t wanted) {
  struct sigaction action = {.sa_handler = wanted, .sa_flags = SA_RESTART}, before;
  return sigaction(number, &action, &before) ? SIG_ERR : before.sa_handler;
}

static const sigset_t *without_ours(int how, const sigset_t *wanted, sigset_t *changed) {
  if (!trap || !wanted || how == SIG_UNBLOCK) return wanted;
  *changed = *wanted;
  sigdelset(changed, trap);
  return changed;
}

/* A fault while its signal is blocked ends a process, whatever its handler. */
VISIBLE int pthread_sigmask(int how, const sigset_t *wanted, sigset_t *before) {
  sigset_t changed;
  return REAL(pthread_sigmask)(how, without_ours(how, wanted, &changed), before);
}

VISIBLE int sigprocmask(int how, const sigset_t *wanted, sigset_t *before) {
  sigset_t changed;
  return REAL(sigprocmask)(how, without_ours(how, wanted, &changed), before);
}

/* --- What a process may ask ------------------------------------------------------------------------------------------ */

/* CPUID as the engine sees it: by the same trap, and so by the same handler. */
VISIBLE __attribute__((noinline, noclone)) void harness_cpuid(uint32_t leaf, uint32_t subleaf, uint32_t answer[4]) {
#define ASK(instruction) __asm__ volatile(instruction \
    : "=a"(answer[0]), "=b"(answer[1]), "=c"(answer[2]), "=d"(answer[3]) : "a"(leaf), "c"(subleaf))
  if (trap == SIGILL) ASK("own_site: ud2");
  else ASK("cpuid");
}

/* How many CPUIDs have been answered so far. */
VISIBLE unsigned long harness_cpuid_answered(void) { return atomic_load(&answered); }

/* --- Start ----------------------------------------------------------------------------------------------------------- */

static void say(const char *format, ...) {
  va_list values;
  va_start(values, format);
  fputs("harness cpuid: ", stderr);
  vfprintf(stderr, format, values);
  fputc('\n', stderr);
  fflush(stderr);
  va_end(values);
}

#define REFUSE(...) do { say(__VA_ARGS__); _exit(REFUSED); } while (0)

static void read_kept(const char *text) {
  while (*text) {
    uint32_t word[6];
    for (int i = 0; i < 6; i++) {
      char *end;
      errno = 0;
      word[i] = (uint32_t)strtoul(text, &end, 16);
      if (end == text || errno || (i < 5 && *end != ':') || (i == 5 && *end && *end != ' '))
        REFUSE("HARNESS_CPUID_KEEP is malformed at \"%.20s\"", text);
      text = *end ? end + 1 : end;
    }
    if (kept_count == MOST_KEPT) REFUSE("HARNESS_CPUID_KEEP names more than %d leaves", MOST_KEPT);
    kept[kept_count].leaf = word[0];
    kept[kept_count].subleaf = word[1];
    memcpy(kept[kept_count++].keep, word + 2, sizeof kept->keep);
  }
}

static void read_sites(const char *list) {
  char folder[PATH_MAX], line[PATH_MAX], path[2 * PATH_MAX], *name, *real = NULL;
  FILE *file = fopen(list, "re");
  if (!file) REFUSE("HARNESS_CPUID_SITES: %s: %s", list, strerror(errno));
  snprintf(folder, sizeof folder, "%s", list);
  dirname(folder);
  while (fgets(line, sizeof line, file)) {
    line[strcspn(line, "\n")] = 0;
    uint64_t offset = strtoull(line, &name, 16);
    snprintf(path, sizeof path, "%s/%s", folder, *name ? name + 1 : name);
    if (!(real = realpath(path, NULL))) REFUSE("%s: %s: %s", list, path, strerror(errno));
    if (strlen(real) >= LONGEST_PATH) REFUSE("%s: longer than %d bytes", real, LONGEST_PATH);
    if (site_count == MOST_SITES) REFUSE("%s: more than %d sites", list, MOST_SITES);
    sites[site_count].offset = offset;
    sites[site_count++].path = real;
  }
  fclose(file);
  if (!site_count) REFUSE("%s: lists no site", list);
}

__attribute__((constructor)) static void start(void) {
  const char *way = getenv("HARNESS_CPUID_WAY"), *keep = getenv("HARNESS_CPUID_KEEP");
  const char *list = getenv("HARNESS_CPUID_SITES");
  if (!way) return; /* preloaded by somebody who wants nothing of it */
  int faulting = !strcmp(way, "faulting"), number = faulting ? SIGSEGV : SIGILL;
  if (!faulting && strcmp(way, "patched")) REFUSE("HARNESS_CPUID_WAY is \"%s\", neither faulting nor patched", way);
  if (!keep) REFUSE("HARNESS_CPUID_KEEP is not set");
  read_kept(keep);
  if (!faulting) read_sites(list ? list : "");
  /* NODEFER: somebody else's handler, called from ours, may execute CPUID as well */
  struct sigaction ours = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK | SA_RESTART};
  sigset_t unblocked;
  sigemptyset(&unblocked);
  sigaddset(&unblocked, number);
  if (REAL(sigaction)(number, &ours, &second) || REAL(sigprocmask)(SIG_UNBLOCK, &unblocked, NULL))
    REFUSE("no handler for %s: %s", strsignal(number), strerror(errno));
  trap = number;
  if (faulting && set_faulting(1))
    REFUSE("the kernel does not let CPUID fault here (arch_prctl ARCH_SET_CPUID: %s)", strerror(errno));
  if (faulting) say("CPUID faults and is answered; %zu leaves are masked", kept_count);
  else say("CPUID is answered in %zu places of patched copies; %zu leaves are masked", site_count, kept_count);
}
