/* Hear commands on a processor without an operating system: the model lies in flash, the stream in a static array, and
 * nothing is allocated. The recording is heard twice: as a product would, 10 ms at a time, and once more through the
 * lower level, for hashes of the features and log-probabilities, which are the same on every processor. */
#include "board.h"
#include "kouling.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))
#define HOP 160 /* samples, 10 ms */

static const _Alignas(KOULING_ALIGN) uint8_t model_bytes[] = {
#include "model.inc"
};
static const int16_t recording[] = {
#include "audio.inc"
};
static _Alignas(KOULING_ALIGN) uint8_t memory[256 * 1024]; /* kouling_stream_size says how much of it a model needs */

static void require(kouling_status status) {
    if (status == KOULING_OK) return;
    print(kouling_message(status)), print("\n");
    quit(1);
}

static void tell(const kouling_event *events, size_t heard) {
    for (size_t i = 0; i < heard; i++) {
        print_bytes(events[i].name, events[i].name_bytes);
        print(" from "), print_number((uint32_t)(1000 * events[i].start_s + 0.5), 10);
        print(" to "), print_number((uint32_t)(1000 * events[i].end_s + 0.5), 10);
        print(" ms, "), print_number((uint32_t)(100 * events[i].confidence + 0.5f), 10), print("%\n");
    }
}

static void hear(kouling_stream *stream) {
    static kouling_event events[KOULING_MAX_EVENTS];
    size_t used, heard;
    uint32_t now = 0, most = 0;
    uint64_t total = 0;
    for (size_t done = 0; done < COUNT(recording); done += used) {
        const size_t left = COUNT(recording) - done;
        ticks_since(&now);
        require(kouling_accept(stream, recording + done, left < HOP ? left : HOP, &used, events, &heard));
        const uint32_t took = ticks_since(&now);
        total += took;
        most = took > most ? took : most;
        tell(events, heard);
    }
    do {
        require(kouling_finish(stream, events, &heard));
        tell(events, heard);
    } while (heard);
    print("ticks of the costliest 10 ms "), print_number(most, 10);
    print(", of a second "), print_number((uint32_t)(total * 16000 / COUNT(recording)), 10), print("\n");
}

static uint32_t hash(uint32_t crc, const float *values, size_t count) { /* CRC-32, as zlib's */
    const uint8_t *bytes = (const uint8_t *)values;
    for (size_t i = 0; i < count * sizeof *values; i++) {
        crc ^= bytes[i];
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
    }
    return crc;
}

/* Of steps that give one encoder frame, as those of the shipped models do. */
static void tell_hashes(kouling_stream *stream, const kouling_model *model) {
    static float features[4096], log_probs[4096];
    uint32_t mels, step, units, of_features = ~0u, of_log_probs = ~0u;
    size_t used, frames;
    require(kouling_shape(model, &mels, &step, &units));
    if (step * mels > COUNT(features) || units > COUNT(log_probs)) quit(1);
    require(kouling_reset(stream));
    for (size_t done = 0;; done += used) {
        require(kouling_features(stream, recording + done, COUNT(recording) - done, &used, features, step, &frames));
        if (frames < step) break;
        require(kouling_log_probs(stream, features, step, log_probs));
        of_features = hash(of_features, features, step * mels);
        of_log_probs = hash(of_log_probs, log_probs, units);
    }
    print("features "), print_number(~of_features, 16), print(" log_probs "), print_number(~of_log_probs, 16), print("\n");
}

int main(void) {
    kouling_model model;
    kouling_stream *stream;
    size_t size;
    require(kouling_model_open(&model, model_bytes, sizeof model_bytes));
    require(kouling_stream_size(&model, NULL, KOULING_LIVE, &size));
    require(kouling_stream_init(&stream, &model, NULL, KOULING_LIVE, memory, sizeof memory));
    hear(stream);
    tell_hashes(stream, &model);
    print("stream "), print_number((uint32_t)size, 10), print(" bytes, stack "), print_number(stack_used(), 10), print("\n");
    return 0;
}
