/* The time of a step against the time since the start: `hour MODEL.kouling SECONDS < audio.pcm`.
 *
 * One live stream, one step's samples at a time, as fast as they are worked on; features, encoder and decoder included.
 * Prints one JSON object: for every window of 10 s of audio the median and the 95th percentile of its steps. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "kouling.h"

static void *read_all(FILE *file, size_t *bytes) {
    size_t room = 1 << 22; /* two minutes of audio, or a model */
    void *data = aligned_alloc(KOULING_ALIGN, room);
    if (!file || !data) exit(2);
    *bytes = fread(data, 1, room, file);
    return data;
}

static int compare(const void *a, const void *b) { return (*(const float *)a > *(const float *)b) - (*(const float *)a < *(const float *)b); }

int main(int argc, char **argv) {
    if (argc != 3) return fprintf(stderr, "usage: hour MODEL.kouling SECONDS < audio.pcm\n"), 2;
    size_t bytes, count, size, used, heard, events = 0;
    uint32_t mels, step, units;
    kouling_model model;
    kouling_stream *stream;
    const void *data = read_all(fopen(argv[1], "rb"), &bytes);
    const int16_t *audio = read_all(stdin, &count);
    if (kouling_model_open(&model, data, bytes) != KOULING_OK) return 2;
    kouling_shape(&model, &mels, &step, &units);
    kouling_stream_size(&model, NULL, KOULING_LIVE, &size);
    void *memory = aligned_alloc(KOULING_ALIGN, size);
    if (!memory || kouling_stream_init(&stream, &model, NULL, KOULING_LIVE, memory, size) != KOULING_OK) return 2;
    const size_t portion = 160 * step, steps = 10 * 16000 / portion, turn = count / sizeof *audio / portion;
    const int windows = atoi(argv[2]) / 10;
    float *times = malloc(steps * sizeof *times);
    if (!times || turn == 0) return 2;
    printf("{\"step_ms\": %g, \"window_s\": 10, \"median_us\": [", (double)portion / 16);
    float *late = malloc((size_t)windows * sizeof *late);
    for (int w = 0; w < windows; w++) {
        for (size_t i = 0; i < steps; i++) {
            struct timespec from, to;
            kouling_event heard_now[KOULING_MAX_EVENTS];
            clock_gettime(CLOCK_MONOTONIC, &from);
            kouling_accept(stream, audio + ((size_t)w * steps + i) % turn * portion, portion, &used, heard_now, &heard);
            clock_gettime(CLOCK_MONOTONIC, &to);
            times[i] = (float)((double)(to.tv_sec - from.tv_sec) * 1e6 + (double)(to.tv_nsec - from.tv_nsec) * 1e-3);
            events += heard;
        }
        qsort(times, steps, sizeof *times, compare);
        printf("%s%.3f", w ? ", " : "", (double)times[steps / 2]);
        late[w] = times[steps * 95 / 100];
    }
    printf("], \"p95_us\": [");
    for (int w = 0; w < windows; w++) printf("%s%.3f", w ? ", " : "", (double)late[w]);
    printf("], \"events\": %zu}\n", events);
    return 0;
}
