/* Lets a program believe that it runs on an older x86 processor: preloaded, it answers CPUID without what
 * OLDER_PROCESSOR leaves out. "avx512": without AMX; "avx2": without AVX-512 and AMX. Exit code 77: it cannot be done here.
 *
 * CPUID is made to fault (arch_prctl, Linux 4.12 and a processor that can); the handler asks the processor, takes out the
 * bits and goes on behind the instruction. What the dynamic loader asked earlier stands: libc may use all it knows. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define SET_CPUID 0x1012 /* ARCH_SET_CPUID of <asm/prctl.h> */
#define BIT(n) (1u << (n))

/* Leaf 7.0: the AVX-512 families in ebx, ecx and edx, AMX in edx; leaf 7.1: AVX-VNNI, AVX-512 BF16, AMX FP16 in eax. */
static const unsigned AVX512_B = BIT(16) | BIT(17) | BIT(21) | BIT(26) | BIT(27) | BIT(28) | BIT(30) | BIT(31);
static const unsigned AVX512_C = BIT(1) | BIT(6) | BIT(11) | BIT(12) | BIT(14);
static const unsigned AVX512_D = BIT(2) | BIT(3) | BIT(8) | BIT(23);
static const unsigned AMX_D = BIT(22) | BIT(24) | BIT(25);
static const unsigned AVX512_1A = BIT(4) | BIT(5);
static const unsigned AMX_1A = BIT(21);

static int without_avx512;

static long allow_cpuid(long allowed) { return syscall(SYS_arch_prctl, SET_CPUID, allowed); }

static void answer(int number, siginfo_t *info, void *context) {
  greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
  const unsigned char *code = (const unsigned char *)registers[REG_RIP];
  unsigned leaf = (unsigned)registers[REG_RAX], part = (unsigned)registers[REG_RCX], a, b, c, d;
  (void)info;
  if (code[0] != 0x0f || code[1] != 0xa2) { /* a real fault: die of it */
    signal(number, SIG_DFL);
    return;
  }
  allow_cpuid(1);
  __asm__ volatile("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "a"(leaf), "c"(part));
  allow_cpuid(0);
  if (leaf == 7 && part == 0) {
    d &= ~AMX_D;
    if (without_avx512) {
      b &= ~AVX512_B;
      c &= ~AVX512_C;
      d &= ~AVX512_D;
    }
  }
  if (leaf == 7 && part == 1) a &= ~(without_avx512 ? AVX512_1A | AMX_1A : AMX_1A);
  registers[REG_RAX] = a;
  registers[REG_RBX] = b;
  registers[REG_RCX] = c;
  registers[REG_RDX] = d;
  registers[REG_RIP] += 2;
}

__attribute__((constructor)) static void become_older(void) {
  const char *wanted = getenv("OLDER_PROCESSOR");
  struct sigaction action = {.sa_sigaction = answer, .sa_flags = SA_SIGINFO | SA_NODEFER};
  if (!wanted) return;
  without_avx512 = strcmp(wanted, "avx2") == 0;
  if (sigaction(SIGSEGV, &action, NULL) || allow_cpuid(0)) _exit(77);
}
