/* The fuzz target without libFuzzer, for any compiler: `replay CHANGES FILE...` runs each file as it is, and of a seed so
 * many changes, the same ones every time. What fails is left in `replay-crash`. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"

#define ROOM ((size_t)1 << 17)
#define DEPTH 4 /* changes one upon another, then from the file anew */

void __sanitizer_set_death_callback(void (*callback)(void));

static uint8_t input[ROOM];
static size_t input_size;
static uint32_t random_state = 1;

static uint32_t draw(uint32_t below) { /* xorshift */
    random_state ^= random_state << 13, random_state ^= random_state >> 17, random_state ^= random_state << 5;
    return random_state % below;
}

/* A few bytes change, come or go. */
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t room) {
    const size_t at = draw((uint32_t)size + 1), count = 1 + draw(4);
    switch (draw(3)) {
    case 0:
        for (size_t i = at; i < at + count && i < size; i++) data[i] = (uint8_t)draw(256);
        return size;
    case 1:
        if (count > room - size) return size;
        memmove(data + at + count, data + at, size - at);
        for (size_t i = at; i < at + count; i++) data[i] = (uint8_t)draw(256);
        return size + count;
    default:
        if (count > size - at) return size;
        memmove(data + at, data + at + count, size - at - count);
        return size - count;
    }
}

static void keep_input(void) {
    FILE *file = fopen("replay-crash", "wb");
    if (file) fwrite(input, 1, input_size, file), fclose(file);
}

static void on_abort(int number) {
    keep_input();
    signal(number, SIG_DFL);
}

static void run(void) {
    uint8_t *exact = malloc(input_size);
    if (input_size) memcpy(exact, input, input_size);
    LLVMFuzzerTestOneInput(exact, input_size);
    free(exact);
}

int main(int argc, char **argv) {
    if (argc < 3) return 2;
    __sanitizer_set_death_callback(keep_input);
    signal(SIGABRT, on_abort);
    LLVMFuzzerInitialize(&argc, &argv);
    for (int i = 2; i < argc; i++) {
        static uint8_t original[ROOM];
        FILE *file = fopen(argv[i], "rb");
        const size_t size = file ? fread(original, 1, sizeof original, file) : 0;
        if (!file) return perror(argv[i]), 2;
        fclose(file);
        const unsigned opened = counts.opened;
        memcpy(input, original, input_size = size);
        run();
        if (!strstr(argv[i], "seed-")) continue;
        if (counts.opened == opened) {
            fprintf(stderr, "%s is refused; if the format is another now, run engine/fuzz/seeds.py\n", argv[i]);
            return 1;
        }
        for (unsigned n = 0; n < (unsigned)atoi(argv[1]); n++) {
            if (n % DEPTH == 0) memcpy(input, original, input_size = size);
            input_size = LLVMFuzzerCustomMutator(input, input_size, ROOM, n);
            run();
        }
    }
    printf("%u inputs, %u opened, %u streams, %u events\n", counts.inputs, counts.opened, counts.streams, counts.events);
    return 0;
}
