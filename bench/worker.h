/* A worker: one model, kept alive, driven over stdin so that the variants take turns.
 *
 *     go N         -> the nanoseconds of N calls, on one line, after a few that do not count
 *     check FILE   -> from the beginning of the speech, all calls; their log-probabilities as float32 into FILE; "done"
 *     memory       -> this process, as JSON, in KB
 *
 * worker.py is the same for the runtimes that have Python for a host.
 */
#ifndef WORKER_H
#define WORKER_H

#include <string.h>

#include "inputs.h"

#define WARM_UP 3

typedef struct {
    const float *speech; /* calls * call_features */
    size_t calls, call_features, call_outputs;
    float *log_probs; /* call_outputs; where `call` leaves its result */
} work;

/* The sum of the lines of that name, in KB. */
static long memory_kb(const char *file, const char *name) {
    FILE *lines = fopen(file, "r");
    char line[256];
    long sum = 0;
    while (lines && fgets(line, sizeof line, lines))
        if (!strncmp(line, name, strlen(name))) sum += atol(line + strlen(name));
    if (lines) fclose(lines);
    return sum;
}

static void print_memory(void) {
    printf("{\"resident\": %ld, \"anonymous\": %ld, \"peak\": %ld, \"private_dirty\": %ld}\n",
           memory_kb("/proc/self/status", "VmRSS:"), memory_kb("/proc/self/status", "RssAnon:"),
           memory_kb("/proc/self/status", "VmHWM:"), memory_kb("/proc/self/smaps_rollup", "Private_Dirty:"));
}

/* call(features): one call, state kept within. reset(): back to the state with which a stream begins. */
static void serve(const work *w, void (*call)(const float *features), void (*reset)(void)) {
    size_t at = 0;
    char line[4096];
    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = 0;
        if (!strncmp(line, "go ", 3)) {
            const long count = atol(line + 3);
            for (long i = -WARM_UP; i < count; i++) {
                const float *features = w->speech + at++ % w->calls * w->call_features;
                const long start = now_ns();
                call(features);
                const long end = now_ns();
                if (i >= 0) printf("%ld ", end - start);
            }
            printf("\n");
        } else if (!strncmp(line, "check ", 6)) {
            FILE *file = fopen(line + 6, "wb");
            if (!file) fail(line + 6);
            reset();
            for (at = 0; at < w->calls; at++) {
                call(w->speech + at * w->call_features);
                fwrite(w->log_probs, sizeof(float), w->call_outputs, file);
            }
            fclose(file);
            printf("done\n");
        } else if (!strcmp(line, "memory")) {
            print_memory();
        } else {
            fail("worker: unknown line");
        }
        fflush(stdout);
    }
}

#endif
