/* All that the example asks of a board. */
#ifndef BOARD_H
#define BOARD_H

#include <stddef.h>
#include <stdint.h>

void print(const char *text);
void print_bytes(const char *text, size_t count);
void print_number(uint32_t value, uint32_t base);
_Noreturn void quit(int status);
/* Ticks of the processor's clock since `then`, fewer than 2^24; `then` becomes now. */
uint32_t ticks_since(uint32_t *then);
/* Bytes of the stack, at its deepest so far. */
uint32_t stack_used(void);

#endif
