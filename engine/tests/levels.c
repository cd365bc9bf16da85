/* Every kernel level that this processor has, on the same audio: `levels MODEL.kouling < audio.pcm` prints for each its
 * name, hashes of the bits of its features and of its log-probabilities, and how many events it hears. All must be equal,
 * here and on any other processor. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "decoder.h"
#include "encoder.h"
#include "kouling.h"

static const char *const names[] = {"portable", "avx2", "avx512-vnni", "avx512-amx", "neon", "neon-dotprod", "wasm-simd"};

static void *aligned(size_t bytes) {
    uint8_t *memory = calloc(bytes + KOULING_ALIGN, 1);
    if (!memory) exit(1);
    return memory + KOULING_ALIGN - (uintptr_t)memory % KOULING_ALIGN; /* never freed: the process ends */
}

static void *read_all(FILE *file, size_t *bytes) {
    size_t room = 1 << 16;
    uint8_t *data = malloc(room);
    *bytes = 0;
    for (size_t got; data && (got = fread(data + *bytes, 1, room - *bytes, file)) > 0;) {
        *bytes += got;
        if (*bytes == room) data = realloc(data, room *= 2);
    }
    void *placed = aligned(*bytes);
    memcpy(placed, data, *bytes);
    free(data);
    return placed;
}

static int listen_at(const kouling_model *model, const char *name, const int16_t *samples, size_t count) {
    size_t size, used, frames, heard = 0;
    kouling_stream *stream;
    if (kouling_stream_size(model, NULL, KOULING_FILE, &size) != KOULING_OK) return 1;
    if (kouling_stream_init(&stream, model, NULL, KOULING_FILE, aligned(size), size) != KOULING_OK) return 1;
    if (!kouling_use_level(stream, name)) return 0;
    kouling_reset(stream); /* primed at this level too */
    uint32_t mels, step, units;
    if (kouling_shape(model, &mels, &step, &units) != KOULING_OK) return 1;
    const size_t most = count / HOP_SAMPLES + 1;
    float *features = aligned(most * mels * sizeof *features), *log_probs = aligned(most * units * sizeof *log_probs);
    kouling_features(stream, samples, count, &used, features, most, &frames);
    frames -= frames % step;
    kouling_log_probs(stream, features, frames, log_probs);
    const size_t outputs = frames / ((const model_header *)model->data)->subsampling;
    kouling_reset(stream);
    static kouling_event events[KOULING_MAX_EVENTS];
    size_t total = 0;
    for (size_t done = 0; done < count; done += used, total += heard)
        kouling_accept(stream, samples + done, count - done, &used, events, &heard);
    do {
        kouling_finish(stream, events, &heard);
        total += heard;
    } while (heard);
    printf("%s features %08x log_probs %08x events %zu\n", name, checksum((const uint8_t *)features, frames * mels * sizeof *features),
           checksum((const uint8_t *)log_probs, outputs * units * sizeof *log_probs), total);
    return 0;
}

int main(int argc, char **argv) {
    if (argc != 2) return 2;
    FILE *file = fopen(argv[1], "rb");
    if (!file) return 2;
    size_t bytes, audio_bytes;
    const void *data = read_all(file, &bytes);
    const int16_t *samples = read_all(stdin, &audio_bytes);
    kouling_model model;
    const kouling_status status = kouling_model_open(&model, data, bytes);
    if (status != KOULING_OK) {
        fprintf(stderr, "%s: %s\n", argv[1], kouling_message(status));
        return 2;
    }
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (listen_at(&model, names[i], samples, audio_bytes / sizeof *samples)) return 1;
    return 0;
}
