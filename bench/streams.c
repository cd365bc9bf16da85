/* Many live streams of one model in real time: `streams MODEL.kouling AUDIO.pcm STREAMS THREADS SECONDS`.
 *
 * Every stream is a talker of its own: it begins elsewhere in the audio and at a moment of its own. Each step's samples are
 * due when a microphone would have given the last of them; the latency is from then until they are heard, features, encoder
 * and decoder included. Prints one JSON object. */
#include <pthread.h>
#include <string.h>

#include "inputs.h"
#include "kouling.h"

static const int16_t *audio;
static size_t audio_count, portion;
static kouling_model model;
static double begin_s, end_s;

typedef struct {
    pthread_t thread;
    int first, count, every;
    size_t steps, heard;
    double busy_s;
    float *latencies; /* seconds */
} worker;

/* What this thread has worked, in seconds. */
static double worked_s(void) {
    struct timespec at;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &at);
    return (double)at.tv_sec + 1e-9 * (double)at.tv_nsec;
}

static double now_s(void) { return 1e-9 * (double)now_ns(); }

static void *aligned(size_t bytes) {
    void *memory = aligned_alloc(KOULING_ALIGN, (bytes + KOULING_ALIGN - 1) / KOULING_ALIGN * KOULING_ALIGN);
    if (!memory) fail("no memory");
    return memory;
}

static void *listen(void *argument) {
    worker *w = argument;
    kouling_event events[KOULING_MAX_EVENTS];
    size_t size, used, heard;
    kouling_stream_size(&model, NULL, KOULING_LIVE, &size);
    kouling_stream **streams = malloc((size_t)w->count * sizeof *streams);
    size_t *at = malloc((size_t)w->count * sizeof *at);
    for (int i = 0; i < w->count; i++) {
        const kouling_status status = kouling_stream_init(&streams[i], &model, NULL, KOULING_LIVE, aligned(size), size);
        if (status != KOULING_OK) fail(kouling_message(status));
        at[i] = (size_t)(w->first + i) * 7919 * 160 % audio_count;
    }
    const double period = (double)portion / 16000, start = now_s(), busy_s = worked_s();
    for (size_t round = 0;; round++)
        for (int i = 0; i < w->count; i++) {
            const double due = start + period * ((double)round + (double)i / w->count);
            if (due > start + end_s) {
                w->busy_s = worked_s() - busy_s;
                return NULL;
            }
            if (now_s() < due) {
                const struct timespec until = {(time_t)due, (long)(1e9 * (due - (double)(time_t)due))};
                clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
            }
            for (size_t done = 0; done < portion;) {
                const size_t left = portion - done, there = audio_count - at[i], many = left < there ? left : there;
                kouling_accept(streams[i], audio + at[i], many, &used, events, &heard);
                at[i] = (at[i] + used) % audio_count;
                done += used;
                w->heard += heard;
            }
            if (due - start >= begin_s) w->latencies[w->steps++] = (float)(now_s() - due);
        }
}

static int compare(const void *a, const void *b) { return (*(const float *)a > *(const float *)b) - (*(const float *)a < *(const float *)b); }

int main(int argc, char **argv) {
    if (argc != 6) fail("usage: streams MODEL.kouling AUDIO.pcm STREAMS THREADS SECONDS");
    const int streams = atoi(argv[3]), threads = atoi(argv[4]);
    size_t bytes;
    const void *data = map_file(argv[1], &bytes);
    audio = map_file(argv[2], &audio_count);
    audio_count /= sizeof *audio;
    if (kouling_model_open(&model, data, bytes) != KOULING_OK) fail("no model");
    if (audio_count == 0 || threads < 1 || streams < threads) fail("no audio, or fewer streams than threads");
    uint32_t mels, step, units;
    kouling_shape(&model, &mels, &step, &units);
    portion = 160 * step;
    begin_s = 1, end_s = atof(argv[5]) + begin_s; /* the first second warms up */
    worker *workers = calloc((size_t)threads, sizeof *workers);
    const size_t most = (size_t)((end_s + 1) * 16000 / (double)portion + 2) * (size_t)(streams / threads + 1);
    for (int t = 0, first = 0; t < threads; t++) {
        worker *w = &workers[t];
        w->first = first, w->count = streams / threads + (t < streams % threads);
        first += w->count;
        w->latencies = malloc(most * sizeof(float));
        pthread_create(&w->thread, NULL, listen, w);
    }
    size_t steps = 0, heard = 0;
    double busy_s = 0;
    float *all = malloc((size_t)threads * most * sizeof(float));
    for (int t = 0; t < threads; t++) {
        pthread_join(workers[t].thread, NULL);
        memcpy(all + steps, workers[t].latencies, workers[t].steps * sizeof(float));
        steps += workers[t].steps, heard += workers[t].heard, busy_s += workers[t].busy_s;
    }
    qsort(all, steps, sizeof *all, compare);
    printf("{\"streams\": %d, \"threads\": %d, \"seconds\": %g, \"period_ms\": %g, \"steps\": %zu, \"events\": %zu, \"busy\": %.4f, "
           "\"latency_us\": [", streams, threads, end_s - begin_s, (double)portion / 16, steps, heard, busy_s / end_s / threads);
    for (int i = 0; i <= 1000; i++) /* by thousandths of the steps */
        printf("%s%.1f", i ? ", " : "", 1e6 * (double)all[(size_t)(i / 1000.0 * (double)(steps - 1))]);
    printf("]}\n");
    return 0;
}
