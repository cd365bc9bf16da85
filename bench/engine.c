/* The engine as a worker: `engine MODEL.kouling SPEECH.f32 FRAMES OUTPUTS live|file`, the numbers those of a call. */
#include "kouling.h"
#include "worker.h"

static kouling_stream *stream;
static work job;
static size_t frames;

static void require(kouling_status status) {
    if (status != KOULING_OK) fail(kouling_message(status));
}

static void call(const float *features) { require(kouling_log_probs(stream, features, frames, job.log_probs)); }
static void reset(void) { require(kouling_reset(stream)); }

int main(int argc, char **argv) {
    if (argc != 6) fail("usage: engine MODEL SPEECH FRAMES OUTPUTS live|file");
    size_t bytes;
    const void *data = map_file(argv[1], &bytes);
    kouling_model model;
    require(kouling_model_open(&model, data, bytes));
    uint32_t mels, step, units;
    require(kouling_shape(&model, &mels, &step, &units));
    frames = (size_t)atol(argv[3]);
    job.speech = map_file(argv[2], &bytes);
    job.call_features = frames * mels;
    job.calls = bytes / sizeof(float) / job.call_features;
    job.call_outputs = (size_t)atol(argv[4]);
    job.log_probs = malloc(job.call_outputs * sizeof(float));
    size_t size;
    const uint32_t at_once = strcmp(argv[5], "live") ? KOULING_FILE : KOULING_LIVE;
    require(kouling_stream_size(&model, NULL, at_once, &size));
    void *memory = aligned_alloc(KOULING_ALIGN, (size + KOULING_ALIGN - 1) / KOULING_ALIGN * KOULING_ALIGN);
    if (!memory || !job.log_probs) fail("no memory");
    require(kouling_stream_init(&stream, &model, NULL, at_once, memory, size));
    printf("{}\n"); /* a C program has no base that is not its own */
    fflush(stdout);
    serve(&job, call, reset);
    return 0;
}
