/* The time of a step against the time since the start: `hour MODEL.kouling AUDIO.pcm SECONDS`.
 *
 * One live stream, one step's samples at a time, as fast as they are worked on; features, encoder and decoder included.
 * Prints one JSON object: for every window of 10 s of audio the median and the 95th percentile of its steps. */
#include "inputs.h"
#include "kouling.h"

static int compare(const void *a, const void *b) { return (*(const float *)a > *(const float *)b) - (*(const float *)a < *(const float *)b); }

int main(int argc, char **argv) {
    if (argc != 4) fail("usage: hour MODEL.kouling AUDIO.pcm SECONDS");
    size_t bytes, count, size, used, heard, events = 0;
    uint32_t mels, step, units;
    kouling_model model;
    kouling_stream *stream;
    const void *data = map_file(argv[1], &bytes);
    const int16_t *audio = map_file(argv[2], &count);
    if (kouling_model_open(&model, data, bytes) != KOULING_OK) fail("no model");
    kouling_shape(&model, &mels, &step, &units);
    kouling_stream_size(&model, NULL, KOULING_LIVE, &size);
    void *memory = aligned_alloc(KOULING_ALIGN, size);
    if (!memory || kouling_stream_init(&stream, &model, NULL, KOULING_LIVE, memory, size) != KOULING_OK) fail("no stream");
    const size_t portion = 160 * step, steps = 10 * 16000 / portion, turn = count / sizeof *audio / portion;
    const int windows = atoi(argv[3]) / 10;
    float *times = malloc(steps * sizeof *times);
    if (!times || turn == 0) fail("no memory, or no audio");
    printf("{\"step_ms\": %g, \"window_s\": 10, \"median_us\": [", (double)portion / 16);
    float *late = malloc((size_t)windows * sizeof *late);
    for (int w = 0; w < windows; w++) {
        for (size_t i = 0; i < steps; i++) {
            kouling_event heard_now[KOULING_MAX_EVENTS];
            const long start = now_ns();
            kouling_accept(stream, audio + ((size_t)w * steps + i) % turn * portion, portion, &used, heard_now, &heard);
            times[i] = 1e-3f * (float)(now_ns() - start);
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
