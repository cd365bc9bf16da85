/* What libFuzzer calls, and what replay.c needs where there is no libFuzzer. */
#ifndef KOULING_FUZZ_H
#define KOULING_FUZZ_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t room, unsigned seed);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t room); /* libFuzzer's, or replay.c's */

/* An input is a file, as long as its own header says, and behind it what to do with it -> where the file ends. */
size_t file_end(const uint8_t *data, size_t size);

/* How far the inputs came: a run in which no file is opened and nothing is heard would prove nothing. */
typedef struct {
    unsigned inputs, opened, streams, events;
} fuzz_counts;

extern fuzz_counts counts;

#endif
