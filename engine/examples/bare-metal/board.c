/* Start-up and semihosting for Cortex-M, without CMSIS. A debugger, or QEMU, is the terminal. */
#include "board.h"

#define SYST_CSR (*(volatile uint32_t *)0xe000e010)
#define SYST_RVR (*(volatile uint32_t *)0xe000e014)
#define SYST_CVR (*(volatile uint32_t *)0xe000e018)
#define PAINT 0x5ca1ab1e /* `reset` has it too */

extern uint32_t data_from[], data_start[], data_end[], bss_start[], bss_end[], stack_bottom[], stack_top[]; /* link.ld */
int main(void);
void reset(void);

static void semihost(int operation, const void *argument) {
    register int r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
}

void print(const char *text) { semihost(0x04, text); } /* SYS_WRITE0 */

void print_bytes(const char *text, size_t count) {
    for (size_t i = 0; i < count; i++) semihost(0x03, text + i); /* SYS_WRITEC */
}

void print_number(uint32_t value, uint32_t base) {
    if (value >= base) print_number(value / base, base);
    print_bytes(&"0123456789abcdef"[value % base], 1);
}

void quit(int status) {
    const uint32_t reason[2] = {0x20026, (uint32_t)status}; /* the application's own exit */
    for (;;) semihost(0x20, reason);                        /* SYS_EXIT_EXTENDED */
}

uint32_t ticks_since(uint32_t *then) {
    const uint32_t now = SYST_CVR, passed = (*then - now) & 0xffffff; /* it counts down */
    *then = now;
    return passed;
}

uint32_t stack_used(void) {
    const uint32_t *deepest = stack_bottom;
    while (deepest < stack_top && *deepest == PAINT) deepest++;
    return (uint32_t)((stack_top - deepest) * sizeof *deepest);
}

/* FPSCR stays as it is after a reset, as IEEE 754 has it: flushing denormals to zero (FPSCR.FZ), which some start-up
 * files turn on, may give other bits than other processors compute. */
__attribute__((used)) static void start(void) {
    for (uint32_t *from = data_from, *to = data_start; to < data_end;) *to++ = *from++;
    for (uint32_t *to = bss_start; to < bss_end;) *to++ = 0;
    SYST_RVR = 0xffffff;
    SYST_CVR = 0;
    SYST_CSR = 5; /* count the processor's clock, interrupt nobody */
    quit(main());
}

/* In assembly: C might use the floating-point unit before it is on (CPACR), or the stack while it is painted. */
__attribute__((naked)) void reset(void) {
    __asm__("ldr r0, =0xe000ed88\n ldr r1, [r0]\n orr r1, #0xf00000\n str r1, [r0]\n dsb\n isb\n"
            "ldr r0, =stack_bottom\n ldr r1, =stack_top\n ldr r2, =0x5ca1ab1e\n"
            "0: cmp r0, r1\n itt lo\n strlo r2, [r0], #4\n blo 0b\n"
            "b start\n");
}

static void fault(void) {
    print("fault\n");
    quit(2);
}

__attribute__((section(".vectors"), used)) static void (*const vectors[16])(void) = {
    (void (*)(void))stack_top, reset, fault, fault, fault, fault, fault, fault};
